/** How many tasks a second the scheduler places, in memory, on one core: prints JSON. Usage: node test/bench/scheduler.ts [nodes] [services] [replicas] */
import { requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import { taskId } from '#proto/model/ids.ts';
import { aNode, aService, aTask, aTemplate, idOf } from '#test/support/builders.ts';

const [nodes = 5_000, services = 500, replicas = 100] = process.argv.slice(2).map(Number);
const reservations = { cpuMillis: 100, memoryBytes: 64 * 2 ** 20, pids: 0, generic: [] };

/** One run on a fresh cluster; returns what it placed and the seconds it took. */
function run(): { placed: number; seconds: number; skew: number } {
  const ledger = new Ledger();
  for (let index = 0; index < nodes!; index++) {
    const labels = { zone: `z${index % 10}`, disk: Math.floor(index / 10) % 2 === 0 ? 'ssd' : 'hdd' };
    const node = aNode(`n${String(index).padStart(5, '0')}`, { labels, subnet: '10.192.0.0/24' });
    ledger.setNode(node.id, node);
  }
  const scheduler = new Scheduler(ledger);
  const wanted = Array.from({ length: services! }, (_, index) =>
    aService(`s${index}`, {
      template: aTemplate({ reservations }),
      placement: {
        constraints: [`node.labels.disk == ${(index >> 3) % 2 === 0 ? 'ssd' : 'hdd'}`],
        spread: ['node.labels.zone'],
        maxReplicasPerNode: 0,
        platforms: [],
        strategy: '',
        affinities: [],
      },
    }),
  );
  const ids = Array.from({ length: services! * replicas! }, (_, index) => taskId(idOf(`t${index}`)));
  const base = aTask('t', { state: 'assigned', reservations });
  let placed = 0;
  const begin = performance.now();
  for (const service of wanted) {
    const places = scheduler.open(requestOf(service.id, service.spec, service.spec.template));
    for (let slot = 1; slot <= replicas!; slot++) {
      const usage = places.pick();
      if (!usage) break;
      const id = ids[placed++]!;
      ledger.setTask(id, {
        ...base,
        id,
        serviceId: service.id,
        slot,
        nodeId: usage.node.id,
        nodeName: usage.node.name,
      });
    }
  }
  const seconds = (performance.now() - begin) / 1_000;
  const tasks = ledger.nodes().map((usage) => usage.tasks);
  return { placed, seconds, skew: Math.max(...tasks) - Math.min(...tasks) };
}

run();
const runs = Array.from({ length: 3 }, run).sort((a, b) => a.seconds - b.seconds);
const median = runs[1]!;
const result = {
  nodes,
  services,
  replicas,
  placed: median.placed,
  seconds: Number(median.seconds.toFixed(3)),
  placementsPerSecond: Math.round(median.placed / median.seconds),
  skewOfTasksPerNode: median.skew,
};
process.stdout.write(`${JSON.stringify(result)}\n`);
