/** `gantry net`: which hop is broken, what nodes have of the network, and the way of one packet. */
import type { NetProbeUpdate } from '#proto/gen/gantry/v1/operator.ts';
import type { NetDiagnosis, NetFinding } from '#proto/gen/gantry/v1/probe.ts';
import { hops } from '#proto/model/net-finding.ts';
import { type CommonOptions, type Session, withSession } from './session.ts';
import { table } from './words.ts';

export interface DoctorOptions extends CommonOptions {
  readonly verbose?: boolean;
}

/** 1 where something is broken. */
export function doctor(options: DoctorOptions, from = '', to = ''): Promise<number> {
  return withSession(options, async (session) => {
    const { findings, diagnoses, notes } = await heard(session, { kind: 'doctor', from, to });
    const broken = diagnoses.filter(({ ok }) => !ok);
    if (session.json) session.printJson({ ok: broken.length === 0, diagnoses, findings, notes });
    else {
      const all = options.verbose === true || from !== '';
      for (const [index, diagnosis] of diagnoses.entries()) {
        const own = inOrder(findings.filter(({ path }) => path === diagnosis.path));
        if (index > 0 && (all || !diagnosis.ok)) session.print('');
        printPath(session, diagnosis, own, all);
      }
      printNotes(session, notes);
      if (diagnoses.length > 1) session.print(summary(diagnoses.length, broken.length));
    }
    return broken.length === 0 ? 0 : 1;
  });
}

function summary(all: number, broken: number): string {
  return broken === 0 ? `\nall ${all} good` : `\n${broken} of ${all} broken`;
}

export function trace(options: CommonOptions, from: string, to: string): Promise<number> {
  return withSession(options, async (session) => {
    const { findings, diagnoses, notes } = await heard(session, { kind: 'trace', from, to });
    const [diagnosis] = diagnoses;
    if (session.json) session.printJson({ ok: diagnosis?.ok ?? true, diagnoses, findings, notes });
    else {
      if (diagnosis) session.print(session.colours.bold(diagnosis.path));
      let node = '';
      for (const finding of findings.filter((one) => one.node !== '' || one.verdict !== 'good')) {
        if (finding.node !== node && finding.node !== '') session.print(`${session.colours.bold(finding.node)}`);
        node = finding.node || node;
        session.print(`  ${sign(session, finding.verdict)} ${finding.says}`);
      }
      if (diagnosis) printCause(session, diagnosis);
      printNotes(session, notes);
    }
    return diagnosis?.ok === false ? 1 : 0;
  });
}

export function show(options: CommonOptions, node = ''): Promise<number> {
  return withSession(options, async (session) => {
    const { findings, notes } = await heard(session, { kind: 'show', from: node, to: '' });
    if (session.json) session.printJson({ findings, notes });
    else {
      const nodes = [...new Set(findings.map(({ path }) => path))];
      for (const [index, name] of nodes.entries()) {
        if (index > 0) session.print('');
        session.print(session.colours.bold(name));
        const rows = findings.filter(({ path }) => path === name).map((finding) => showRow(session, finding));
        session.print(table(['', 'WHAT', 'SHOULD BE', 'IS'], rows, session.colours.bold));
      }
      printNotes(session, notes);
    }
    return findings.some(({ verdict }) => verdict === 'broken') ? 1 : 0;
  });
}

function showRow(session: Session, finding: NetFinding): string[] {
  const { verdict, subject, says, wanted, seen } = finding;
  const is = verdict === 'good' ? session.colours.dim('the same') : session.colours.red(seen || 'missing');
  return [sign(session, verdict), subject || says, wanted || 'nothing', is];
}

async function heard(session: Session, request: { readonly kind: string; readonly from: string; readonly to: string }) {
  const findings: NetFinding[] = [];
  const diagnoses: NetDiagnosis[] = [];
  const notes: string[] = [];
  for await (const { body } of session.stream<NetProbeUpdate>(session.client.netProbe(request))) {
    if (body?.$case === 'finding') findings.push(body.value);
    else if (body?.$case === 'diagnosis') diagnoses.push(body.value);
    else if (body?.$case === 'note') notes.push(body.value);
  }
  return { findings, diagnoses, notes };
}

/** By hop, as a packet meets them; nodes beside each other. */
function inOrder(findings: readonly NetFinding[]): NetFinding[] {
  const rank = ({ hop }: NetFinding) => (hops as readonly string[]).indexOf(hop);
  return [...findings].sort((a, b) => rank(a) - rank(b) || (a.node < b.node ? -1 : a.node > b.node ? 1 : 0));
}

function printPath(session: Session, diagnosis: NetDiagnosis, findings: readonly NetFinding[], all: boolean): void {
  const { bold, green } = session.colours;
  if (diagnosis.ok && !all) {
    session.print(`${green('✓')} ${diagnosis.path}`);
    return;
  }
  session.print(bold(diagnosis.path));
  const shown = all ? findings : findings.filter(({ verdict }) => verdict !== 'good');
  const width = Math.max(...shown.map(({ hop }) => hop.length), 0);
  const nodeWidth = Math.max(...shown.map(({ node }) => node.length), 0);
  for (const { verdict, hop, node, says } of shown)
    session.print(`  ${sign(session, verdict)} ${hop.padEnd(width)}  ${node.padEnd(nodeWidth)}  ${says}`);
  printCause(session, diagnosis);
}

function printCause(session: Session, { ok, broken }: NetDiagnosis): void {
  const { red, green, bold } = session.colours;
  if (ok || !broken) {
    session.print(green('all hops are good'));
    return;
  }
  const where = broken.node === '' ? '' : ` on ${broken.node}`;
  session.print(`${bold(red('broken:'))} ${broken.hop}${where}: ${broken.says}`);
  session.print(`${bold('remedy:')} ${broken.remedy}`);
}

function printNotes(session: Session, notes: readonly string[]): void {
  for (const note of notes) session.print(session.colours.dim(`note: ${note}`));
}

function sign({ colours }: Session, verdict: string): string {
  if (verdict === 'good') return colours.green('✓');
  return verdict === 'broken' ? colours.red('✗') : colours.yellow('?');
}
