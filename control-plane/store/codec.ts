/** How records lie in etcd: keys under one prefix, values as JSON, and what is secret sealed. */
import { assert, Fault } from '#proto/kernel/errors.ts';
import { completed } from './older-records.ts';
import { type Table, type Tables, tables } from './records.ts';

export const prefix = '/gantry/';
/** The one key that says who leads. */
export const leadershipKey = `${prefix}leadership`;

/** Says in which form records are, and who raised it to that: `{form, by}`. Missing: 1. */
export const formKey = `${prefix}form`;
/**
 * Raised where an older replica would take what we write for something else: by the leader, once all replicas are of a version
 * that knows the new form. New tables, and fields that may be left out, are no reason.
 */
export const storeForm = 1;

/** Faults: `unsupported`, records of a form that a newer version has raised. */
export function assertForm(bytes: Buffer): void {
  const { form, by } = JSON.parse(bytes.toString()) as { form: number; by: string };
  if (form <= storeForm) return;
  throw new Fault(
    'unsupported',
    `control plane ${by} has written records of form ${form}; this version reads forms up to ${storeForm}`,
    {
      remedy: `start ${by} or a newer one; to go back all the same, restore a backup that was made before (gantry cluster restore)`,
    },
  );
}

/** Encrypts what must not lie readable in etcd or its backups. */
export interface Sealer {
  seal(text: string): string;
  /** Faults: `corrupt` where the text was not sealed with a key we have. */
  open(sealed: string): string;
}

/** For tests and simulations, where nothing is secret. */
export const noSealer: Sealer = { seal: (text) => text, open: (text) => text };

const known: ReadonlySet<string> = new Set(tables);

/** `/gantry/<table>/<key>`. */
export function recordKey(table: Table, key: string): string {
  return `${prefix}${table}/${key}`;
}

/** Undefined for a key of no table this version knows: a newer control plane's, to be left alone. */
export function parseRecordKey(path: string): { readonly table: Table; readonly key: string } | undefined {
  const slash = path.indexOf('/', prefix.length);
  if (slash < 0) return undefined;
  const table = path.slice(prefix.length, slash);
  return known.has(table) ? { table: table as Table, key: path.slice(slash + 1) } : undefined;
}

/** The bytes of a record. */
export function encodeRecord<T extends Table>(table: T, value: Tables[T], sealer: Sealer): Buffer {
  assert(value !== undefined, 'a removal has no bytes');
  if (table === 'credential') {
    const credential = value as Tables['credential'];
    return Buffer.from(JSON.stringify({ ...credential, password: sealer.seal(credential.password) }));
  }
  if (table === 'token') {
    const token = value as Tables['token'];
    return Buffer.from(JSON.stringify({ ...token, secretHash: sealer.seal(token.secretHash) }));
  }
  if (table === 'authority') {
    const authority = value as Tables['authority'];
    return Buffer.from(JSON.stringify({ ...authority, key: sealer.seal(authority.key) }));
  }
  return Buffer.from(JSON.stringify(value));
}

/** The record of its bytes. Faults: `corrupt`. */
export function decodeRecord(table: Table, bytes: Buffer, sealer: Sealer): Tables[Table] {
  const value = completed(table, parse(table, bytes));
  if (table === 'credential') {
    const credential = value as Tables['credential'];
    return { ...credential, password: sealer.open(credential.password) };
  }
  if (table === 'token') {
    const token = value as Tables['token'];
    return { ...token, secretHash: sealer.open(token.secretHash) };
  }
  if (table === 'authority') {
    const authority = value as Tables['authority'];
    return { ...authority, key: sealer.open(authority.key) };
  }
  return value;
}

function parse(table: Table, bytes: Buffer): Tables[Table] {
  try {
    return JSON.parse(bytes.toString()) as Tables[Table];
  } catch (error) {
    throw new Fault('corrupt', `a record of table ${table} in etcd is not JSON`, {
      cause: error,
      remedy: 'restore etcd from a backup, or delete the key by hand',
    });
  }
}
