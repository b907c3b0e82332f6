/**
 * `npm run chaos:managers -- --rounds 20`: of three managers the one that leads both etcd and the control plane is taken, under 100 writes/s;
 * `--deployments 3`: then so often during the deployment of 100 tasks, beside as many that are left alone.
 */
import { parseArgs } from 'node:util';
import { startCluster } from '#test/support/cluster.ts';
import { type LossOutcome, losses, ManagersLab } from '#test/support/managers-lab.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '10' }, deployments: { type: 'string', default: '0' } },
});
const rounds = Number(values.rounds);
const deployments = Number(values.deployments);
const deployedTasks = 100;
const print = (line: string) => process.stdout.write(`${line}\n`);
const at = (share: number, figures: readonly number[]) =>
  Math.round([...figures].sort((a, b) => a - b)[Math.min(figures.length - 1, Math.floor(figures.length * share))] ?? 0);
const spread = (figures: readonly number[]) =>
  `p50 ${at(0.5, figures)} ms, p99 ${at(0.99, figures)} ms, longest ${at(1, figures)} ms`;

const cluster = await startCluster(2, { managers: 3 });
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void cluster.close().then(() => process.exit(130)));
const outcomes: LossOutcome[] = [];
const delays: number[] = [];
let twice = 0;
try {
  await cluster.apply('name: app\nservices: { app: { image: "registry:5000/hello:1", deploy: { replicas: 4 } } }\n');
  await cluster.settled('app', 4, 60_000);
  const lab = new ManagersLab(cluster);
  for (let round = 0; round < rounds; round++) {
    const loss = losses[round % losses.length] as (typeof losses)[number];
    const outcome = await lab.round(loss);
    outcomes.push(outcome);
    const { manager, acknowledged, gap, readGap, readsFailed, lost, restarted, sessionsMs } = outcome;
    print(
      `${round + 1}/${rounds} ${loss} (${manager}): ${acknowledged} writes acknowledged, ${lost.length} lost, longest gap ${Math.round(gap)} ms; reads elsewhere: longest gap ${Math.round(readGap)} ms, ${readsFailed} failed; sessions of all nodes after ${sessionsMs} ms; ${restarted} tasks restarted`,
    );
    for (const name of lost) print(`LOST ${name}`);
  }
  for (let round = 0; round < deployments; round++) {
    const loss = losses[round % losses.length] as (typeof losses)[number];
    const calm = await lab.deployment(`calm${round}`, deployedTasks);
    const lost = await lab.deployment(`lost${round}`, deployedTasks, loss);
    delays.push(lost.ms - calm.ms);
    twice += lost.twice;
    print(
      `deployment ${round + 1}/${deployments} of ${deployedTasks} tasks: ${Math.round(calm.ms)} ms, with ${loss} ${Math.round(lost.ms)} ms; ${lost.twice} tasks twice`,
    );
  }
  lab.close();
} finally {
  await cluster.close();
}
const sum = (of: (one: LossOutcome) => number) => outcomes.reduce((total, one) => total + of(one), 0);
const [lost, restarted, readsFailed] = [
  sum((one) => one.lost.length),
  sum((one) => one.restarted),
  sum((one) => one.readsFailed),
];
print(`longest gap between acknowledged writes, by round: ${spread(outcomes.map(({ gap }) => gap))}`);
print(`a write, tries at other managers included: ${spread(outcomes.flatMap(({ latencies }) => latencies))}`);
print(`longest gap between reads at those that stayed: ${spread(outcomes.map(({ readGap }) => readGap))}`);
print(
  `from a leader's first moment to the sessions of all nodes: ${spread(outcomes.map(({ sessionsMs }) => sessionsMs))}`,
);
print(
  `${sum((one) => one.acknowledged)} acknowledged, ${lost} lost; ${readsFailed} reads failed; ${restarted} tasks restarted`,
);
if (deployments > 0)
  print(`a deployment took longer by the loss of its leader: ${spread(delays)}; ${twice} tasks were started twice`);
process.exit(lost + restarted + twice > 0 ? 1 : 0);
