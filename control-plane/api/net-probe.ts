/** `gantry net`: has the nodes look, streams what they find, and says which hop is broken. */
import type { RelayChannel } from '#control-plane/dispatch/relay.ts';
import type { NetProbeRequest, NetProbeUpdate } from '#proto/gen/gantry/v1/operator.ts';
import type { NetFinding, Probe, ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import { Queue } from '#proto/kernel/queue.ts';
import { causeOf, type Finding, isHop } from '#proto/model/net-finding.ts';
import type { Node } from '#proto/model/node.ts';
import { findNode } from './names.ts';
import { nodeFact, type Watched, whereLost } from './net-books.ts';
import { type Ask, type Examination, examineAll, examineOne, examinePath, type Path, type Send } from './net-doctor.ts';
import { placeOf } from './net-places.ts';
import type { OperatorParts } from './parts.ts';

/** A node that has not told all by then is taken as it is. */
const nodeTimeoutMs = 4_000;
/** An agent that hangs is not waited for. */
const openTimeoutMs = 2_000;
const armTimeoutMs = 1_200;
/** For what is still on its way when the sending has ended. */
const settleMs = 60;
const watchForMs = 3_500;
const mostNodesAtOnce = 24;
const mostSendsAtOnce = 4;
/** Nodes shown where none is named. */
const mostShown = 16;
/** Above what kernels give connections on their own. */
const firstSourcePort = 61_001;
const sourcePorts = 4_500;

type Tell = (finding: Finding) => void;

/** Findings as nodes make them, then a diagnosis for each path. Faults: `invalid`, `not-found` (of the names). */
export async function* netProbe(
  parts: OperatorParts,
  request: NetProbeRequest,
  signal: AbortSignal,
): AsyncGenerator<NetProbeUpdate> {
  const door = parts.leader();
  if (door) {
    yield* door.netProbe(request, signal);
    return;
  }
  const { paths, notes } = examinationOf(parts, request);
  const updates = new Queue<NetProbeUpdate>();
  for (const note of notes) updates.push({ body: { $case: 'note', value: note } });
  const found = new Map<string, Finding[]>(paths.map(({ title }) => [title, []]));
  const told = new Set<string>();
  const tell = (title: string): Tell => {
    return (finding) => {
      const whole = { ...finding, path: title };
      // Two sends may meet the same rule.
      const key = [title, whole.node, whole.hop, whole.says].join('\n');
      if (told.has(key)) return;
      told.add(key);
      found.get(title)?.push(whole);
      updates.push({ body: { $case: 'finding', value: whole } });
    };
  };
  for (const path of paths) for (const finding of path.known) tell(path.title)(finding);
  const run = new Run(parts, request.kind === 'trace', signal);
  run.all(paths, tell).then(
    () => updates.end(),
    (error) => updates.end(error),
  );
  yield* updates;
  if (request.kind === 'show') return;
  for (const [path, findings] of found) {
    const broken = causeOf(findings);
    yield {
      body: { $case: 'diagnosis', value: { path, ok: broken === undefined, broken: broken as NetFinding | undefined } },
    };
  }
}

function examinationOf({ store }: OperatorParts, { kind, from, to }: NetProbeRequest): Examination {
  const { snapshot } = store;
  switch (kind) {
    case 'show': {
      const all =
        from === '' ? [...snapshot.all('node')].sort((a, b) => (a.name < b.name ? -1 : 1)) : [findNode(snapshot, from)];
      const nodes = all.slice(0, mostShown);
      const notes =
        nodes.length < all.length ? [`${nodes.length} of ${all.length} nodes are shown: name the one you mean`] : [];
      const questions = (node: Node) =>
        node.state === 'ready' ? [{ node, ask: { $case: 'show', value: {} } as const }] : [];
      const paths = nodes.map((node) => ({
        title: node.name,
        known: node.state === 'ready' ? [] : [nodeFact(node)],
        questions: questions(node),
        sends: [],
      }));
      return { paths, notes };
    }
    case 'trace': {
      if (from === '' || to === '')
        throw new Fault('invalid', 'a trace goes from somewhere to somewhere', { remedy: 'gantry net trace FROM TO' });
      const { paths, notes } = examinePath(snapshot, placeOf(snapshot, from), placeOf(snapshot, to));
      return { paths: paths.slice(0, 1).map(traceOf), notes };
    }
    case 'doctor':
      if (from === '') return examineAll(snapshot);
      if (to !== '') return examinePath(snapshot, placeOf(snapshot, from), placeOf(snapshot, to));
      return examineOne(snapshot, placeOf(snapshot, from));
    default:
      throw new Fault('invalid', `"${kind}" is none of doctor, show, trace`);
  }
}

/** The last send of a path (through the VIP or the published port where there is one), and the kernel's opinion of it. */
function traceOf(path: Path): Path {
  const last = path.sends.at(-1);
  if (!last) return { ...path, questions: [], sends: [] };
  const { taskId, from, address, port } = last.reach;
  return {
    ...path,
    questions: [{ node: last.node, ask: { $case: 'steps', value: { taskId, from, address, port } } }],
    sends: [last],
  };
}

/** One examination under way. */
class Run {
  readonly #parts: OperatorParts;
  readonly #traced: boolean;
  readonly #signal: AbortSignal;
  readonly #silent = new Map<string, Fault>();

  constructor(parts: OperatorParts, traced: boolean, signal: AbortSignal) {
    this.#parts = parts;
    this.#traced = traced;
    this.#signal = signal;
  }

  async all(paths: readonly Path[], tell: (title: string) => Tell): Promise<void> {
    const asked = this.#questions(paths, tell);
    // A trace is read in its order: what the kernel means to do, then what became of the packet.
    if (this.#traced) await asked;
    const sends = paths.flatMap((path) => path.sends.map((send) => ({ send, tell: tell(path.title) })));
    await Promise.all([asked, inTurns(sends, mostSendsAtOnce, (one) => this.#send(one.send, one.tell))]);
  }

  /** Each question once for each node, whatever the number of paths that it is part of. */
  #questions(paths: readonly Path[], tell: (title: string) => Tell): Promise<unknown> {
    const byNode = new Map<
      string,
      { readonly node: Node; readonly asks: Map<string, { readonly ask: Ask; readonly tells: Tell[] }> }
    >();
    for (const path of paths) {
      const seen = new Set<string>();
      for (const { node, ask } of path.questions) {
        const key = JSON.stringify(ask);
        if (seen.has(node.id + key)) continue;
        seen.add(node.id + key);
        const group = byNode.get(node.id) ?? { node, asks: new Map() };
        byNode.set(node.id, group);
        const one = group.asks.get(key) ?? { ask, tells: [] };
        group.asks.set(key, one);
        one.tells.push(tell(path.title));
      }
    }
    return inTurns([...byNode.values()], mostNodesAtOnce, ({ node, asks }) => this.#ask(node, [...asks.values()]));
  }

  async #ask(node: Node, asks: readonly { readonly ask: Ask; readonly tells: readonly Tell[] }[]): Promise<void> {
    const tellAll = (finding: Finding) => {
      for (const tell of new Set(asks.flatMap(({ tells }) => tells))) tell(finding);
    };
    try {
      await this.#relay(
        node,
        asks.map(({ ask }) => ask),
        ({ fact }) => {
          for (const tell of asks[fact.probe]?.tells ?? []) tell(findingOf(node, fact));
        },
      );
    } catch (error) {
      if (!isFault(error)) throw error;
      tellAll(silentNode(node, error));
    }
  }

  /** Opens a relay, and hands over its facts as they come; ends with the node's last word, or when the time is up (Fault('timeout')). */
  async #relay(
    node: Node,
    asks: readonly Ask[],
    heard: (one: { readonly fact: ProbeFact; readonly channel: RelayChannel }) => void,
  ): Promise<void> {
    const { clock } = this.#parts;
    const probes = asks.map((ask, id) => ({ id, ask }));
    const channel = await this.#open(node, probes);
    let late = false;
    const timer = clock.after(nodeTimeoutMs, () => {
      late = true;
      channel.close();
    });
    const abort = () => channel.close();
    this.#signal.addEventListener('abort', abort, { once: true });
    try {
      for await (const { body } of channel.frames) {
        if (body?.$case === 'error') throw new Fault('unavailable', body.value);
        if (body?.$case === 'fact') heard({ fact: body.value, channel });
      }
      if (late) throw new Fault('timeout', `it did not tell all within ${nodeTimeoutMs / 1_000} s`);
    } finally {
      timer.cancel();
      this.#signal.removeEventListener('abort', abort);
      channel.close();
    }
  }

  /** As Relays.open, but sooner, and only once for a node that is silent. */
  async #open(node: Node, probes: Probe[]): Promise<RelayChannel> {
    const { relays, clock } = this.#parts;
    const silent = this.#silent.get(node.id);
    if (silent) throw silent;
    let late = false;
    const opening = relays.open(node.id, { $case: 'probe', value: { probes } });
    opening.then((channel) => late && channel.close()).catch(() => {});
    const tooLate = new Promise<never>((_, reject) => {
      const timer = clock.after(openTimeoutMs, () => {
        late = true;
        reject(new Fault('timeout', `it did not answer within ${openTimeoutMs / 1_000} s`));
      });
      opening.finally(() => timer.cancel()).catch(() => {});
    });
    try {
      return await Promise.race([opening, tooLate]);
    } catch (error) {
      if (isFault(error)) this.#silent.set(node.id, error);
      throw error;
    }
  }

  /** Sends; where it does not get there, sends again while the nodes on the way watch, so that a rule that stops it is named. */
  async #send(send: Send, tell: Tell): Promise<void> {
    if (!this.#traced) {
      const facts = await this.#reach(send, 0);
      if (facts.every(({ verdict }) => verdict === 'good') || this.#silent.has(send.node.id))
        return facts.forEach(tell);
    }
    const sourcePort = firstSourcePort + this.#parts.random.int(sourcePorts);
    const watches = send.watchers.map((node) => this.#watch(node, send, sourcePort));
    await Promise.all(watches.map(({ ready }) => ready));
    const facts = await this.#reach(send, sourcePort);
    await this.#parts.clock.sleep(settleMs);
    for (const { enough } of watches) enough();
    const seen: Watched[] = [];
    for (const [index, { done }] of watches.entries())
      seen.push({ node: send.watchers[index] as Node, findings: await done });
    // Rules that let it pass are a trace's matter.
    for (const finding of seen.flatMap(({ findings }) => findings))
      if (this.#traced || finding.verdict !== 'good') tell(finding);
    const lost = whereLost(seen, facts);
    if (lost) tell(lost);
    facts.forEach(tell);
  }

  async #reach({ node, reach }: Send, sourcePort: number): Promise<Finding[]> {
    const facts: Finding[] = [];
    try {
      const ask: Ask = { $case: 'reach', value: { ...reach, sourcePort } };
      await this.#relay(node, [ask], ({ fact }) => facts.push(findingOf(node, fact)));
    } catch (error) {
      if (!isFault(error)) throw error;
      facts.push(silentNode(node, error));
    }
    return facts;
  }

  /** Has a node watch: `ready` once it does (or cannot), `done` with what it saw, after `enough`. */
  #watch(node: Node, { reach, watchers }: Send, sourcePort: number) {
    const { clock } = this.#parts;
    const findings: Finding[] = [];
    let open: RelayChannel | undefined;
    let isReady: () => void = () => {};
    const armed = new Promise<void>((resolve) => {
      isReady = resolve;
    });
    const timer = clock.after(armTimeoutMs, () => isReady());
    const tunnelsFrom = watchers.filter((one) => one.id !== node.id).map(({ address }) => address);
    const value = { sourcePort, echo: reach.port === 0, tunnelsFrom, forMs: watchForMs };
    const done = this.#relay(node, [{ $case: 'watch', value }], ({ fact, channel }) => {
      open = channel;
      if (fact.hop === 'watch') isReady();
      else findings.push(findingOf(node, fact));
    })
      .catch((error) => {
        if (!isFault(error)) throw error;
      })
      .then(() => {
        isReady();
        return findings;
      });
    const enough = () => void open?.write({ body: { $case: 'stdinClosed', value: true } });
    return { ready: armed.finally(() => timer.cancel()), done, enough };
  }
}

function findingOf(node: Node, { probe: _probe, hop, verdict, ...words }: ProbeFact): Finding {
  const known = verdict === 'good' || verdict === 'broken' ? verdict : 'unknown';
  return { ...words, path: '', hop: isHop(hop) ? hop : 'rules', node: node.name, verdict: known };
}

function silentNode(node: Node, fault: Fault): Finding {
  const says = `the agent of ${node.name} does not answer: ${describe(fault)}`;
  const remedy = `is it running and not hung? on ${node.name}: systemctl status gantry-agent; gantry nodes`;
  return {
    path: '',
    hop: 'node',
    node: node.name,
    verdict: 'broken',
    says,
    remedy,
    subject: node.name,
    wanted: '',
    seen: '',
  };
}

/** As Promise.all of `action` on each, that many at one time. */
async function inTurns<T>(items: readonly T[], atOnce: number, action: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const turns = Array.from({ length: Math.min(atOnce, waiting.length) }, async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await action(item);
  });
  await Promise.all(turns);
}
