/** `gantry rollout status|pause|resume|undo`, `gantry history`: where a change of a service stands, and which there were. */
import { type HistoryEntry, RollbackRequest, type RolloutSeat, ServiceRequest } from '#proto/gen/gantry/v1/operator.ts';
import { type WaitOptions, wish } from './services.ts';
import { type Colours, type CommonOptions, methods, withSession } from './session.ts';
import { clockTime, oneLine, table } from './words.ts';

export function status(options: CommonOptions, service: string): Promise<number> {
  return withSession(options, async (session) => {
    const { seats, gates, summary, ...rest } = await session.call(methods.rolloutStatus, { service });
    if (session.json) {
      session.printJson({ summary, seats, gates, rollout: rest.service?.rollout });
      return 0;
    }
    const { colours } = session;
    session.print(oneLine(summary));
    if (seats.length > 0) {
      const rows = seats.map((seat) => [
        seat.task,
        String(seat.revision),
        stageOf(colours, seat),
        seat.node,
        seat.waitsFor,
      ]);
      session.print(`\n${table(['TASK', 'REVISION', 'STAGE', 'NODE', 'WAITS FOR'], rows, colours.bold)}`);
    }
    if (gates.length > 0) {
      const rows = gates.map((gate) => [
        gate.name,
        String(gate.seats),
        gate.state === 'here' ? colours.yellow(gate.state) : gate.state,
        gate.opens,
      ]);
      session.print(`\n${table(['GATE', 'SEATS', 'STATE', 'OPENS'], rows, colours.bold)}`);
    }
    return 0;
  });
}

function stageOf(colours: Colours, { stage }: RolloutSeat): string {
  const colour = { new: colours.green, failed: colours.red, moving: colours.yellow, watched: colours.yellow }[stage];
  return colour ? colour(stage) : stage;
}

export function pause(options: CommonOptions, service: string): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.pauseRollout, ServiceRequest.create({ services: [service] }));
    if (session.json) session.printJson(response);
    else session.print(response.message);
    return 0;
  });
}

export function resume(options: WaitOptions, service: string): Promise<number> {
  return wish(options, (session) =>
    session.call(methods.resumeRollout, ServiceRequest.create({ services: [service] })),
  );
}

export function undo(options: WaitOptions, service: string): Promise<number> {
  const request = RollbackRequest.create({ services: [service] });
  return wish(options, (session) => session.call(methods.rollback, request), true);
}

export function history(options: CommonOptions, service: string): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.history, { service });
    if (session.json) {
      session.printJson(response.entries);
      return 0;
    }
    if (response.entries.length === 0) {
      session.print(`Nothing is written down of ${response.service} yet: its next change begins the history.`);
      return 0;
    }
    const { colours } = session;
    for (const entry of response.entries) {
      session.print(headOf(colours, entry));
      if (entry.message && entry.outcome !== 'completed') session.print(`    ${oneLine(entry.message)}`);
      for (const change of entry.changes) session.print(`    ${change}`);
    }
    return 0;
  });
}

function headOf(colours: Colours, { version, atMs, why, by, outcome, current, previous }: HistoryEntry): string {
  const colour =
    { completed: colours.green, paused: colours.red, 'rolled-back': colours.red }[outcome] ?? colours.yellow;
  const mark = current ? colours.bold(' ← now') : previous ? ' ← gantry rollback' : '';
  return `${colours.bold(String(version).padStart(3))}  ${clockTime(atMs)}  ${colour(outcome)}  ${oneLine(why)}${by ? ` (${by})` : ''}${mark}`;
}
