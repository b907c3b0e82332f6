/** What differs between two specs, with the values of variables that do not look as if they were secret. */
import type { ServiceSpec } from '#proto/model/service.ts';
import { specDiff } from './spec-diff.ts';

/** As `specDiff`, whose lines about variables these replace. */
export function specDiffWithValues(before: ServiceSpec, after: ServiceSpec): string[] {
  const others = specDiff(before, after).filter((line) => !line.startsWith('environment: '));
  return [...others, ...variableDiff(before.template.container.env, after.template.container.env)];
}

function variableDiff(before: readonly string[], after: readonly string[]): string[] {
  const [was, is] = [new Map(before.map(split)), new Map(after.map(split))];
  return [...new Set([...was.keys(), ...is.keys()])].flatMap((name) => {
    const [old, now] = [was.get(name), is.get(name)];
    if (old === now) return [];
    const isSecret = [old, now].some((value) => value !== undefined && looksSecret(name, value));
    const how = old === undefined ? 'added' : now === undefined ? 'removed' : 'changed';
    return [`environment: ${name} ${isSecret ? how : `${shortly(old)} → ${shortly(now)}`}`];
  });
}

/** By what it is called, or because it holds a password in an address, a key or a token. */
function looksSecret(name: string, value: string): boolean {
  const words = /pass|pwd|secret|token|key|cred|auth|private|cert|salt|cookie|session|dsn|sign|license|connection/i;
  return words.test(name) || /:\/\/[^/\s]*:[^/\s]*@|-----BEGIN|^eyJ[\w-]+\./.test(value);
}

function shortly(value: string | undefined): string {
  if (value === undefined) return 'none';
  return value.length > 60 ? `${value.slice(0, 57)}…` : value || '""';
}

function split(entry: string): readonly [string, string] {
  const cut = entry.indexOf('=');
  return [entry.slice(0, cut), entry.slice(cut + 1)];
}
