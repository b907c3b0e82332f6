/** One end of a measured connection: blocking calls through koffi, so that little but the kernel is in the figures. `serve PORT`, or asked by lines of JSON. */
import readline from 'node:readline';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const c = {
  socket: libc.func('int socket(int, int, int)'),
  bind: libc.func('int bind(int, const void *, uint32)'),
  listen: libc.func('int listen(int, int)'),
  accept: libc.func('int accept(int, void *, void *)'),
  connect: libc.func('int connect(int, const void *, uint32)'),
  setsockopt: libc.func('int setsockopt(int, int, int, const void *, uint32)'),
  send: libc.func('long send(int, const void *, unsigned long, int)'),
  recv: libc.func('long recv(int, void *, unsigned long, int)'),
  close: libc.func('int close(int)'),
};
const [AF_INET, SOCK_STREAM, SOL_SOCKET, SO_REUSEADDR, SO_LINGER, SO_RCVTIMEO] = [2, 1, 1, 2, 13, 20] as const;
const [IPPROTO_TCP, TCP_NODELAY] = [6, 1] as const;
const one = Buffer.from([1, 0, 0, 0]);
/** Closing resets: nothing lingers, however many connections a second are made. */
const lingerZero = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
const byte = Buffer.alloc(1);

function checked(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

function place(address: string, port: number): Buffer {
  const name = Buffer.alloc(16);
  name.writeUInt16LE(AF_INET, 0);
  name.writeUInt16BE(port, 2);
  Buffer.from(address.split('.').map(Number)).copy(name, 4);
  return name;
}

function open(): number {
  const fd = checked(c.socket(AF_INET, SOCK_STREAM, 0), 'socket');
  c.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, one, 4);
  return fd;
}

function connectTo(address: string, port: number): number {
  const fd = open();
  const fiveSeconds = Buffer.alloc(16);
  fiveSeconds.writeBigInt64LE(5n, 0);
  c.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, fiveSeconds, 16);
  c.setsockopt(fd, SOL_SOCKET, SO_LINGER, lingerZero, 8);
  checked(c.connect(fd, place(address, port), 16), `connecting to ${address}:${port}`);
  return fd;
}

/** One connection after another, each byte sent back. */
function serve(port: number): never {
  const listener = open();
  c.setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, one, 4);
  checked(c.bind(listener, place('0.0.0.0', port), 16), 'bind');
  checked(c.listen(listener, 128), 'listen');
  for (;;) {
    const fd = checked(c.accept(listener, null, null), 'accept');
    c.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, one, 4);
    while (c.recv(fd, byte, 1, 0) === 1) c.send(fd, byte, 1, 0);
    c.close(fd);
  }
}

interface Order {
  readonly address: string;
  readonly port: number;
  readonly ms: number;
  /** `trip`: a byte there and back on one connection; `connect`: a new connection for each. */
  readonly kind: 'trip' | 'connect';
}

/** How many a second. */
function measure({ address, port, ms, kind }: Order): number {
  const trip = (fd: number) => {
    checked(c.send(fd, byte, 1, 0), 'send');
    if (checked(c.recv(fd, byte, 1, 0), 'recv') !== 1) throw new Error('the other end has closed');
  };
  const lasting = kind === 'trip' ? connectTo(address, port) : undefined;
  const began = performance.now();
  let count = 0;
  let now = began;
  for (; now - began < ms; now = performance.now()) {
    if (lasting !== undefined) trip(lasting);
    else {
      const fd = connectTo(address, port);
      trip(fd);
      c.close(fd);
    }
    count++;
  }
  if (lasting !== undefined) c.close(lasting);
  return (count * 1000) / (now - began);
}

const [mode, port] = process.argv.slice(2);
if (mode === 'serve') serve(Number(port));
for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer: unknown;
  try {
    answer = { perSecond: measure(JSON.parse(line) as Order) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
