/** The files of the cluster's identity, made at first start and kept: DIR/pki. Running it again only renews what ages. */

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { certificateHash, certificatesIn, isIssuedBy, lifeSpent } from '#proto/certificates.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type Random, systemRandom } from '#proto/kernel/random.ts';
import {
  type Authority,
  createAuthority,
  dayMs,
  issuePair,
  type KeyPair,
  openAuthority,
  type Role,
  roleUri,
} from './certificates.ts';

export interface PkiParts {
  /** The control plane's data directory: files go into `pki` under it. */
  readonly dataDir: string;
  /** This replica's name. */
  readonly name: string;
  /** Address that agents and other replicas reach it at. */
  readonly advertise: string;
  /** 90 days unless told. */
  readonly lifetimeMs?: number;
  readonly now?: () => number;
  readonly random?: Random;
}

/** Whose certificates lie under `pki`: a directory each with cert.pem and key.pem. */
export type PkiHolder = 'etcd' | 'nats' | 'server' | 'client';

export interface Pki {
  readonly authority: Authority;
  /** 32 bytes that secrets at rest are sealed with. */
  readonly sealKey: Buffer;
  pair(holder: PkiHolder): KeyPair;
}

/** Of certificates of managers and nodes; all renew theirs when half of it has passed. */
export const certificateLifeMs = 90 * dayMs;
/**
 * A name in the certificates of the control plane and of etcd itself, and in nobody else's: nodes' and operators' names have
 * no dots. etcd takes clients of our CA with this name alone (`--client-cert-allowed-hostname`).
 */
export const etcdClientName = 'control-plane.gantry';
const holders: Record<PkiHolder, { readonly role: Role; readonly server: boolean }> = {
  etcd: { role: 'infrastructure', server: true },
  nats: { role: 'infrastructure', server: true },
  server: { role: 'control-plane', server: true },
  client: { role: 'control-plane', server: false },
};

/** Paths of a holder's files. */
export function pkiPaths(
  dataDir: string,
  holder: PkiHolder,
): { readonly cert: string; readonly key: string; readonly ca: string } {
  const dir = join(dataDir, 'pki', holder);
  return { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem'), ca: join(dataDir, 'pki', 'ca.pem') };
}

/**
 * Makes what is missing, renews what has half its life behind it or was issued for other names, and returns all of it.
 * Faults: `corrupt` where the CA's key is missing beside its certificate.
 */
export async function initPki(parts: PkiParts): Promise<Pki> {
  const { dataDir, name, advertise, now = systemClock.now, random = systemRandom } = parts;
  const { lifetimeMs = certificateLifeMs } = parts;
  const dir = join(dataDir, 'pki');
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { root, ...others } = await rootOf(dir, now(), random);
  const authority = await openAuthority(root, now, random, others);
  const pairs = new Map<PkiHolder, KeyPair>();
  const reached = [...new Set(['127.0.0.1', 'localhost', advertise, name])];
  for (const holder of Object.keys(holders) as PkiHolder[]) {
    const hosts = holder === 'client' || holder === 'etcd' ? [...reached, etcdClientName] : reached;
    const paths = pkiPaths(dataDir, holder);
    let pair = await readPair(paths.cert, paths.key);
    const wanted = [...hosts, roleUri(holders[holder].role)].join(',');
    const issuedFor = (await readText(join(dirname(paths.cert), 'hosts')))?.trim();
    if (
      !pair ||
      issuedFor !== wanted ||
      lifeSpent(pair.certificate, now()) > 0.5 ||
      !isIssuedBy(pair.certificate, authority.certificate)
    ) {
      pair = await issuePair(authority, { commonName: name, hosts, lifetimeMs, ...holders[holder] });
      await writePair(paths.cert, paths.key, pair);
      await writeFileWhole(join(dirname(paths.cert), 'hosts'), `${wanted}\n`, 0o644);
    }
    pairs.set(holder, pair);
  }
  const sealKey = await sealKeyOf(join(dir, 'seal.key'), random);
  return { authority, sealKey, pair: (holder) => pairs.get(holder)! };
}

/** What `init` made. Faults: `precondition` where it has not run. */
export async function assertInitialised(dataDir: string): Promise<void> {
  if (!(await readText(join(dataDir, 'pki', 'ca.pem'))))
    throw new Fault('precondition', `${dataDir} has no identity yet`, {
      remedy: `run \`control-plane init --data ${dataDir} --name NAME --advertise ADDRESS\` first`,
    });
}

/** What makes this cluster this cluster: whoever has these can be it. */
const identityNames = ['seal.key', 'cross.pem', 'ca.key', 'ca.pem'] as const;
/** There from the first start on; `cross.pem` only once the CA has been rotated. */
const identityOfAll = identityNames.filter((name) => name !== 'cross.pem');

export function isIdentityFile(name: string): boolean {
  return (identityNames as readonly string[]).includes(name);
}

/** Their texts, by name: for a backup. */
export async function identityFiles(dataDir: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const name of identityNames) {
    const text = await readText(join(dataDir, 'pki', name));
    if (text !== undefined) files[name] = text;
  }
  return files;
}

/** Faults: `precondition` where it is not there whole yet: the manager `from` has made it. */
export async function assertIdentity(dataDir: string, from: string): Promise<void> {
  const held = await identityFiles(dataDir);
  const missing = identityOfAll.filter((name) => held[name] === undefined);
  if (missing.length === 0) return;
  throw new Fault(
    'precondition',
    `${dataDir}/pki lacks ${missing.join(', ')}: the cluster's identity comes from ${from}`,
    {
      remedy: `copy ${identityOfAll.join(', ')} (and cross.pem where it is there) from ${dataDir}/pki of ${from}, where \`control-plane init\` has made them`,
    },
  );
}

/**
 * What lies there where it is `files`' own cluster (who else has its seal key?) with a CA of after a rotation: members trust that one
 * alone. Undefined where `files` are as good.
 */
export async function rotatedSince(
  dataDir: string,
  files: Readonly<Record<string, string>>,
): Promise<Readonly<Record<string, string>> | undefined> {
  const held = await identityFiles(dataDir);
  if (identityOfAll.some((name) => held[name] === undefined) || held['seal.key'] !== files['seal.key'])
    return undefined;
  const [own, other] = [newestRoot(held), newestRoot(files)];
  // A manager that went off while it took a new root may lack its key.
  const isWhole = own?.checkPrivateKey(createPrivateKey(held['ca.key']!));
  return isWhole && other && Date.parse(own!.validFrom) > Date.parse(other.validFrom) ? held : undefined;
}

/** The first: that is the one made last. */
function newestRoot(files: Readonly<Record<string, string>>): X509Certificate | undefined {
  const [first] = certificatesIn(files['ca.pem'] ?? '');
  return first === undefined ? undefined : new X509Certificate(first);
}

/**
 * Lays an identity down; certificates follow with the next `initPki`. `overAtMs` (wall clock): what lies there already is put aside,
 * as pki.before-TIME. False where it lies there already. Faults: `precondition` where another identity lies there.
 */
export async function placeIdentity(
  dataDir: string,
  files: Readonly<Record<string, string>>,
  overAtMs: number | undefined,
): Promise<boolean> {
  const dir = join(dataDir, 'pki');
  const held = await identityFiles(dataDir);
  if (Object.keys(held).length > 0 && identityNames.every((name) => held[name] === files[name])) return false;
  if (Object.keys(held).length > 0) {
    if (overAtMs === undefined) {
      const whose =
        held['seal.key'] === files['seal.key']
          ? 'of this cluster, with another CA than the backup has'
          : 'of another cluster';
      throw new Fault('precondition', `${dir} holds the identity ${whose}`, {
        remedy:
          'stop the control plane, etcd and NATS of every manager, and give --force to have it put aside; or another --data',
      });
    }
    await rename(dir, `${dir}.before-${new Date(overAtMs).toISOString().replaceAll(':', '-')}`);
  }
  await mkdir(dir, { recursive: true, mode: 0o700 });
  // The certificate last: without it the rest is not looked at.
  for (const name of identityNames)
    if (files[name] !== undefined) await writeFileWhole(join(dir, name), files[name], modeOf(name));
  return true;
}

/**
 * Lays down what another replica has made of the CA; false where it is there already. The next `initPki` issues by it.
 * Interrupted, it goes on issuing by the root of before, and trusts both.
 */
export async function adoptAuthority(
  dataDir: string,
  { trust, cross, key }: { readonly trust: string; readonly cross: string; readonly key: string },
): Promise<boolean> {
  const dir = join(dataDir, 'pki');
  const wanted = { 'ca.pem': trust, 'cross.pem': cross, 'ca.key': key };
  let changed = false;
  for (const [name, text] of Object.entries(wanted)) {
    if (((await readText(join(dir, name))) ?? '') === text) continue;
    await writeFileWhole(join(dir, name), text, modeOf(name));
    changed = true;
  }
  return changed;
}

function modeOf(name: string): number {
  return name.endsWith('.pem') ? 0o644 : 0o600;
}

interface Roots {
  /** The one that issues. */
  readonly root: KeyPair;
  readonly cross: string;
  readonly older: string;
}

async function rootOf(dir: string, nowMs: number, random: Random): Promise<Roots> {
  const certificate = join(dir, 'ca.pem');
  const key = join(dir, 'ca.key');
  const trusted = certificatesIn((await readText(certificate)) ?? '');
  const keyText = await readText(key);
  if (trusted.length > 0) {
    const issuing =
      keyText && trusted.find((one) => new X509Certificate(one).checkPrivateKey(createPrivateKey(keyText)));
    if (!issuing)
      throw new Fault('corrupt', `${certificate} is there, but its key ${key} is not`, {
        remedy: 'restore the key from a backup; without it no node can join',
      });
    const cross = (await readText(join(dir, 'cross.pem'))) ?? '';
    return {
      root: { certificate: issuing, key: keyText },
      cross: cross !== '' && isOfSameKey(cross, issuing) ? cross : '',
      older: trusted.filter((one) => one !== issuing).join(''),
    };
  }
  const made = await createAuthority(`gantry-ca-${Buffer.from(random.bytes(4)).toString('hex')}`, nowMs, random);
  certificateHash(made.certificate);
  await writePair(certificate, key, made);
  return { root: made, cross: '', older: '' };
}

function isOfSameKey(a: string, b: string): boolean {
  const [keyOfA, keyOfB] = [a, b].map((one) => new X509Certificate(one).publicKey);
  return keyOfA!.equals(keyOfB!);
}

async function sealKeyOf(path: string, random: Random): Promise<Buffer> {
  const text = await readText(path);
  if (text) {
    const key = Buffer.from(text.trim(), 'base64');
    if (key.length !== 32)
      throw new Fault('corrupt', `${path} does not hold a key of 32 bytes`, { remedy: 'restore it from a backup' });
    return key;
  }
  const key = Buffer.from(random.bytes(32));
  await writeFileWhole(path, `${key.toString('base64')}\n`, 0o600);
  return key;
}

async function readPair(certificate: string, key: string): Promise<KeyPair | undefined> {
  const [certificateText, keyText] = await Promise.all([readText(certificate), readText(key)]);
  return certificateText && keyText ? { certificate: certificateText, key: keyText } : undefined;
}

/** The key first: a certificate on disk always has its key. */
async function writePair(certificate: string, key: string, pair: KeyPair): Promise<void> {
  await mkdir(dirname(certificate), { recursive: true, mode: 0o700 });
  await writeFileWhole(key, pair.key, 0o600);
  await writeFileWhole(certificate, pair.certificate, 0o644);
}

/** All of it or nothing, also after a power cut. */
async function writeFileWhole(path: string, text: string, mode: number): Promise<void> {
  const file = await open(`${path}.new`, 'w', mode);
  try {
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Fault('internal', `cannot read ${path}`, {
      cause: error,
      remedy: 'run as root, or give --data a directory you own',
    });
  }
}
