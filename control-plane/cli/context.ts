/** `gantry context`: control planes on other machines, by client certificate. */
import { readFileSync } from 'node:fs';
import { Fault } from '#proto/kernel/errors.ts';
import { createRequest } from './certificate-request.ts';
import {
  contextNames,
  currentContext,
  parseContext,
  readContext,
  removeContext,
  saveContext,
  useContext,
  writeContext,
} from './context-file.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { table } from './words.ts';

interface AddOptions extends CommonOptions {
  readonly file?: string;
  readonly address?: readonly string[];
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export async function list(options: CommonOptions): Promise<number> {
  const current = currentContext() ?? 'local';
  const contexts = contextNames().map((name) => ({
    name,
    current: name === current,
    addresses: readContext(name).addresses,
  }));
  if (options.json)
    process.stdout.write(
      `${JSON.stringify([{ name: 'local', current: current === 'local', addresses: [] }, ...contexts], undefined, 2)}\n`,
    );
  else {
    const rows = contexts.map(({ name, current, addresses }) => [current ? '*' : ' ', name, addresses.join(', ')]);
    process.stdout.write(
      `${table([' ', 'CONTEXT', 'ADDRESSES'], [[current === 'local' ? '*' : ' ', 'local', 'unix socket of this machine'], ...rows])}\n`,
    );
  }
  return 0;
}

/** On a manager: the key is made here and goes into the file only. */
export function create(options: CommonOptions & { readonly out?: string }, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { csrPem, key } = await createRequest(name);
    const { certificatePem, caPem, addresses } = await session.call(methods.issueCertificate, { csrPem, name });
    const path = (options.out ?? 'NAME.gantry.json').replace('NAME', name);
    writeContext(path, { addresses, ca: caPem, certificate: certificatePem, key });
    if (session.json) session.printJson({ path, addresses });
    else
      session.print(
        `wrote ${path}: whoever has it may operate the cluster\non the other machine: gantry context add ${name} --file ${path}`,
      );
    return 0;
  });
}

export async function add(options: AddOptions, name: string): Promise<number> {
  const context = options.file === undefined ? fromParts(options) : parseContext(read(options.file), options.file);
  const path = saveContext(name, context);
  useContext(name);
  process.stdout.write(`saved ${path}; it is in use now\n`);
  return 0;
}

function fromParts({ address, ca, cert, key }: AddOptions) {
  if (!address || !ca || !cert || !key)
    throw new Fault('invalid', 'a context needs an address, a CA, a certificate and a key', {
      remedy: 'give --file, or --address --ca --cert --key',
    });
  return { addresses: [...address], ca: read(ca), certificate: read(cert), key: read(key) };
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Fault('not-found', `${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`, { cause: error });
  }
}

export async function use(_options: CommonOptions, name: string): Promise<number> {
  useContext(name);
  process.stdout.write(`${name} is in use now\n`);
  return 0;
}

export async function remove(_options: CommonOptions, name: string): Promise<number> {
  removeContext(name);
  process.stdout.write(`forgot ${name}\n`);
  return 0;
}
