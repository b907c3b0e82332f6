/** `gantry why`: the scheduler's table, node by rule. */
import { Fault } from '#proto/kernel/errors.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { clockTime, oneLine, table } from './words.ts';

const kinds = ['task', 'service', 'node'];

/** `named`: where `name` is what it is, as in `why node h3`. Faults: `invalid`. */
export function why(options: CommonOptions, name: string, named?: string): Promise<number> {
  return withSession(options, async (session) => {
    const { colours } = session;
    if (named !== undefined && !kinds.includes(name))
      throw new Fault('invalid', `gantry why explains one thing, not ${name} and ${named}`, {
        remedy: 'name a task or a node: gantry why hello.3',
      });
    const explanation = await session.call(methods.explain, { name: named ?? name });
    if (session.json) session.printJson(explanation);
    else {
      session.print(explanation.summary);
      if (explanation.nodes.length > 0) {
        const rows = explanation.nodes.map(({ node, verdicts, chosen, rank }) => [
          `${chosen ? '→ ' : '  '}${node}`,
          ...verdicts.map((verdict) => (verdict === '' ? colours.green('✓') : colours.red(`✗ ${verdict}`))),
          rank,
        ]);
        session.print('');
        session.print(
          table(['  NODE', ...explanation.rules.map((rule) => rule.toUpperCase()), 'LOAD'], rows, colours.bold),
        );
      }
      if (explanation.checks.length > 0) {
        session.print(`\n${colours.bold('CHECKS')} (the last ones, by the clock of its node)`);
        for (const { ok, atMs, tookMs, output } of explanation.checks)
          session.print(`  ${clockTime(atMs)} ${ok ? colours.green('✓') : colours.red('✗')} ${output} (${tookMs} ms)`);
      }
      if (explanation.history.length > 0) {
        session.print(`\n${colours.bold('HISTORY')} (UTC)`);
        for (const line of explanation.history) session.print(`  ${oneLine(line)}`);
      }
    }
    return 0;
  });
}
