/** In what a plan differs from another one of the same files, in words. Pure. */
import type { Plan } from '#proto/gen/gantry/v1/operator.ts';

/** One line for each thing that was planned then and not now (`-`), or now and not then (`+`); empty: they are the same. */
export function planDifference(then: Plan, now: Plan): string[] {
  const [before, after] = [linesOf(then), linesOf(now)];
  const lines = [
    ...[...before].filter((line) => !after.has(line)).map((line) => `- ${line}`),
    ...[...after].filter((line) => !before.has(line)).map((line) => `+ ${line}`),
  ];
  return lines.length > 0 || then.digest === now.digest ? lines : ['the files say something else than the plan'];
}

/** Ids are left out: those of what is new are made anew. */
function linesOf({ changes, networks, documents }: Plan): ReadonlySet<string> {
  const lines = new Set<string>();
  const add = (action: string, name: string, details: readonly string[] = []) => {
    if (action === 'unchanged') return;
    lines.add(`${action} ${name}`);
    for (const detail of details) lines.add(`${name}: ${detail}`);
  };
  for (const { action, type, name } of documents) add(action, `${type} ${name}`);
  for (const { action, name, details } of networks) add(action, `network ${name}`, details);
  for (const { action, name, details, tasks } of changes) {
    add(action, name, details);
    for (const task of tasks) {
      const seat = task.slot > 0 ? `${name}.${task.slot}` : name;
      lines.add(`${task.action} ${seat} ${task.node ? `on ${task.node}` : 'nowhere'}`);
    }
  }
  return lines;
}
