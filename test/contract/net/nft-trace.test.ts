/** The kernel's word on which rule stops a packet, and that nothing of the asking outlives the one who asked. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import readline from 'node:readline';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';
import { endsWithTest } from '#test/support/process.ts';

let lab: NetLab;
let host: LabHost;
beforeAll(async () => {
  lab = await NetLab.start(1);
  host = lab.host(1);
});
afterAll(() => lab?.stop());

/** A process that traces connections from port 61001, and prints what they met, a line each. */
function tracer(): { readonly child: ChildProcess; readonly lines: string[] } {
  const file = join(import.meta.dirname, '../../../net/doctor/nft-trace.ts');
  const program = `import { describeMet, NftTrace } from ${JSON.stringify(file)};
    const trace = new NftTrace('gantry_trace_61001');
    await trace.start(['tcp sport 61001']);
    console.log('ready');
    for (;;) {
      const met = trace.read();
      const texts = await trace.rules(met);
      for (const one of met) console.log(one.verdict, one.header?.destinationPort ?? '', describeMet(one, texts));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }`;
  const command = [`--net=${host.netns}`, process.execPath, '--input-type=module', '-e', program];
  const child = spawn('setpriv', [...endsWithTest, 'nsenter', ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  readline.createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  return { child, lines };
}

it('names the rule, others’ too, and leaves no table behind when it is killed', async () => {
  await host.run('nft', 'table inet mine { chain c { type filter hook input priority 0; tcp dport 81 drop; }; }');
  const { child, lines } = tracer();
  try {
    await eventually(() => lines.includes('ready'));
    expect(await host.run('nft', 'list', 'tables')).toContain('gantry_trace_61001');
    await lab.program(
      host.netns,
      `require('net').connect({ host: '127.0.0.1', port: 81, localPort: 61001 }); setTimeout(() => process.exit(), 300);`,
    );
    const drop = 'the rule "tcp dport 81 drop" of chain c in table inet mine';
    await eventually(() => lines.some((line) => line.startsWith('drop') && line.endsWith(drop)));
  } finally {
    child.kill('SIGKILL');
  }
  await eventually(async () => !(await host.run('nft', 'list', 'tables')).includes('gantry_trace'));
  expect(await host.run('nft', 'list', 'tables')).toContain('table inet mine');
});
