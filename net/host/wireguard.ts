/** The WireGuard device beneath our tunnels: the kernel's where it has one, else wireguard-go's, configured by `wg`. */
import { execFile, spawn } from 'node:child_process';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { describeWireGuard, type WireGuard, wireguardName } from '#net/plan/tunnel.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { attribute, Netlink, NLM_F_CREATE, NLM_F_EXCL, nested, type Request } from './netlink.ts';
import { inPrivateNetns } from './netns.ts';
import {
  addAddress,
  deleteAddress,
  deleteLink,
  findLink,
  IFLA,
  type Link,
  linkBody,
  listAddresses,
  RTM,
  setLink,
} from './rtnetlink.ts';

const execute = promisify(execFile);
const commandTimeoutMs = 5_000;
/** How long wireguard-go may take to make its device. */
const startTimeoutMs = 5_000;
const lookEveryMs = 10;

/** How this machine does WireGuard; undefined: not at all. */
type Means = 'kernel' | 'wireguard-go';

/** What it takes to make the device. */
export interface WireGuardMaker {
  readonly clock: Clock;
  /** The agent's data directory, where the private key is. */
  readonly dataDir: string;
}

/** What the device of an index has been told, kept as long as it may last. */
const toldSchema = z.object({
  index: z.number(),
  key: z.string(),
  port: z.number(),
  peers: z.array(z.tuple([z.string(), z.object({ endpoint: z.string(), allowed: z.string() })])),
});
type Told = z.infer<typeof toldSchema>;

export class WireGuardLink {
  readonly #runDir: string;
  readonly #netlink: Netlink;
  readonly #maker: (WireGuardMaker & { readonly means: Means | undefined }) | undefined;
  readonly #keys: { readonly privateKey: string; readonly publicKey: string } | undefined;

  /** `netlink`: makes and reads links in the namespace of the host. Without `maker` it can be read alone. */
  constructor(parts: { readonly runDir: string; readonly netlink: Netlink }, maker?: WireGuardMaker) {
    this.#runDir = parts.runDir;
    this.#netlink = parts.netlink;
    this.#maker = maker && { ...maker, means: meansOfWireGuard() };
    this.#keys = this.#maker?.means && keysIn(this.#maker.dataDir);
  }

  /** Of this node; empty where it cannot do WireGuard. Its private key is made once, and stays. */
  get publicKey(): string {
    return this.#keys?.publicKey ?? '';
  }

  /** The device as it is; what it was told is remembered, not asked for. */
  read(link: Link): WireGuard {
    if (link.kind !== 'wireguard' && link.kind !== 'tun') {
      throw new Fault('precondition', `the link ${wireguardName} is a ${link.kind || 'device'}, not our tunnel`, {
        remedy: `rename it: ip link set ${wireguardName} name OTHER`,
      });
    }
    const told = this.#told();
    const known = told?.index === link.index && (!this.#keys || told.key === this.#keys.publicKey);
    const { port, peers } = known ? told : { port: 0, peers: [] };
    return { port, peers: new Map(peers), addresses: this.#addressesOf(link.index), mtu: link.mtu, up: link.up };
  }

  #addressesOf(index: number): readonly string[] {
    return listAddresses(this.#netlink).flatMap((item) => (item.index === index ? [item.cidr] : []));
  }

  /** Makes the device where it is missing, and tells it its peers where they are others; sessions of peers that stay go on. */
  async set(wanted: WireGuard): Promise<void> {
    if (!this.#keys) throw noWireGuard();
    const link = findLink(this.#netlink, wireguardName) ?? (await this.#make());
    const seen = this.read(link);
    const { port, peers, addresses } = wanted;
    if (describeWireGuard({ ...seen, port, peers }) !== describeWireGuard(seen)) {
      fs.rmSync(this.#toldFile, { force: true });
      try {
        await this.#tell(link.kind, this.#keys.privateKey, wanted);
      } catch (error) {
        // Its process is out of its mind: without its device it ends, and the next try makes another.
        this.#netlink.try([deleteLink(wireguardName)]);
        throw error;
      }
      const told: Told = { index: link.index, key: this.#keys.publicKey, port, peers: [...peers] };
      fs.writeFileSync(this.#toldFile, JSON.stringify(told), { mode: 0o600 });
    }
    this.#netlink.do(
      ...seen.addresses.filter((one) => !addresses.includes(one)).map((one) => deleteAddress(link.index, one)),
      ...addresses.map((one) => addAddress(link.index, one)),
      setLink({ index: link.index, mtu: wanted.mtu }),
    );
  }

  get #toldFile(): string {
    return path.join(this.#runDir, `${wireguardName}.json`);
  }

  #told(): Told | undefined {
    try {
      return toldSchema.safeParse(JSON.parse(fs.readFileSync(this.#toldFile, 'utf8'))).data;
    } catch {
      // Not there, or cut off: then nothing is known, and it is told again.
      return undefined;
    }
  }

  async #make(): Promise<Link> {
    if (!this.#maker?.means) throw noWireGuard();
    if (this.#maker.means === 'kernel') this.#netlink.do(createKernelDevice());
    else await this.#startProcess(this.#maker.clock);
    const link = findLink(this.#netlink, wireguardName);
    if (!link) throw new Fault('unavailable', `${wireguardName} was made and is gone again`);
    return link;
  }

  /**
   * Starts wireguard-go, which outlives this process: the device is there as long as it is, the next agent goes on with it, and
   * it ends when the device is deleted. It makes the device, and the socket that `wg` configures it by, under a name that no
   * other network namespace of this machine uses.
   */
  async #startProcess(clock: Clock): Promise<void> {
    const runDir = this.#runDir;
    const name = processName();
    const log = fs.openSync(path.join(runDir, 'wireguard-go.log'), 'a', 0o600);
    const child = spawn('wireguard-go', ['--foreground', name], {
      detached: true,
      stdio: ['ignore', log, log],
      env: { PATH: process.env.PATH ?? '', LOG_LEVEL: 'error' },
    });
    fs.closeSync(log);
    let ended = '';
    child.on('error', (error) => {
      ended = error.message;
    });
    child.on('exit', (code, signal) => {
      ended = `it ended with ${signal ?? code}`;
    });
    child.unref();
    const deadline = clock.monotonic() + startTimeoutMs;
    for (;;) {
      const link = findLink(this.#netlink, name);
      if (link && fs.existsSync(socketOf(name))) {
        this.#netlink.do(renameLink(link.index, wireguardName));
        return;
      }
      if (ended !== '' || clock.monotonic() > deadline) {
        child.kill('SIGKILL');
        const what = `wireguard-go does not start: ${ended || 'it makes no device'}`;
        throw new Fault('unavailable', what, { remedy: `see ${path.join(runDir, 'wireguard-go.log')}` });
      }
      await clock.sleep(lookEveryMs);
    }
  }

  async #tell(kind: string, privateKey: string, wanted: WireGuard): Promise<void> {
    const file = path.join(this.#runDir, `${wireguardName}.conf`);
    fs.writeFileSync(file, configurationText(privateKey, wanted), { mode: 0o600 });
    try {
      await run('wg', 'syncconf', kind === 'tun' ? processName() : wireguardName, file);
    } finally {
      fs.rmSync(file, { force: true });
    }
  }
}

function configurationText(privateKey: string, { port, peers }: WireGuard): string {
  const sections = [...peers].map(
    ([key, { endpoint, allowed }]) => `[Peer]\nPublicKey = ${key}\nEndpoint = ${endpoint}\nAllowedIPs = ${allowed}\n`,
  );
  return [`[Interface]\nPrivateKey = ${privateKey}\nListenPort = ${port}\n`, ...sections].join('\n');
}

async function run(command: string, ...words: string[]): Promise<void> {
  try {
    await execute(command, words, { timeout: commandTimeoutMs });
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    const what = `${command} ${words[0]} failed: ${(stderr || message).trim()}`;
    throw new Fault('unavailable', what, { cause: error });
  }
}

const socketOf = (name: string) => `/var/run/wireguard/${name}.sock`;

/** wireguard-go's sockets are all in one directory, by the name of the device: that of this namespace's device. */
function processName(): string {
  const inode = /\d+/.exec(fs.readlinkSync('/proc/thread-self/ns/net'))?.[0] ?? '0';
  return `gantry${Number(inode).toString(36)}`;
}

/** What to install, for what people read. */
export function noWireGuard(): Fault {
  return new Fault('unsupported', 'this machine cannot do WireGuard', {
    remedy: 'install wireguard-tools, and wireguard-go where the kernel has no WireGuard',
  });
}

function meansOfWireGuard(): Means | undefined {
  if (!isInstalled('wg')) return undefined;
  if (kernelHasWireGuard()) return 'kernel';
  return isInstalled('wireguard-go') && fs.existsSync('/dev/net/tun') ? 'wireguard-go' : undefined;
}

function isInstalled(command: string): boolean {
  return (process.env.PATH ?? '').split(':').some((directory) => fs.existsSync(path.join(directory, command)));
}

/** To ask is to make one, where nobody sees it. */
function kernelHasWireGuard(): boolean {
  return inPrivateNetns(() => {
    const netlink = new Netlink(0);
    try {
      netlink.do(createKernelDevice());
      return true;
    } catch (error) {
      if (isFault(error, 'unsupported')) return false;
      throw error;
    } finally {
      netlink.close();
    }
  });
}

function createKernelDevice(): Request {
  return {
    what: `making the tunnel ${wireguardName}`,
    type: RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(0, 0, 0, attribute(IFLA.name, wireguardName), nested(IFLA.linkInfo, attribute(1, 'wireguard'))),
  };
}

function renameLink(index: number, name: string): Request {
  const body = linkBody(index, 0, 0, attribute(IFLA.name, name));
  return { what: `naming the tunnel ${name}`, type: RTM.newLink, flags: 0, body };
}

/** The key pair of this node, in WireGuard's base64. Faults: `precondition`, where the file is none of ours. */
function keysIn(dataDir: string): { readonly privateKey: string; readonly publicKey: string } {
  const file = path.join(dataDir, 'wireguard.key');
  if (!fs.existsSync(file)) {
    const { d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
    const next = `${file}.new`;
    fs.writeFileSync(next, `${Buffer.from(d ?? '', 'base64url').toString('base64')}\n`, { mode: 0o600 });
    fs.renameSync(next, file);
  }
  const privateKey = fs.readFileSync(file, 'utf8').trim();
  const raw = Buffer.from(privateKey, 'base64');
  if (raw.length !== 32) throw new Fault('precondition', `${file} is no WireGuard key`, { remedy: 'remove it' });
  // PKCS#8 of X25519 is this and the key.
  const der = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), raw]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const { x } = createPublicKey(key).export({ format: 'jwk' });
  return { privateKey, publicKey: Buffer.from(x ?? '', 'base64url').toString('base64') };
}
