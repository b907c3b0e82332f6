/** The sandbox's ear in its world namespace: connections and datagrams handed in over a unix socket go out on the virtual switch, as any client's beyond it would. */
import { createSocket } from 'node:dgram';
import { rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { onDatagrams, sendDatagram } from './datagrams.ts';

const [socketPath, ...outsideAddresses] = process.argv.slice(2);
if (socketPath === undefined) throw new Error('usage: gateway.ts SOCKET OUTSIDE-ADDRESS…');

/** The first line of a connection names its target, `tcp address:port` or `udp address:port`; the answer is `ok` or the reason, then bytes flow, or datagrams. */
function join(client: Socket): void {
  client.on('error', () => client.destroy());
  let head = Buffer.alloc(0);
  const onData = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\n');
    if (end < 0) return;
    client.off('data', onData);
    client.pause();
    const [protocol = '', target = ''] = head.subarray(0, end).toString().split(' ');
    const colon = target.lastIndexOf(':');
    const [host, port] = [target.slice(0, colon), Number(target.slice(colon + 1))];
    if (head.length > end + 1) client.unshift(head.subarray(end + 1));
    if (protocol === 'udp') exchangeDatagrams(client, host, port);
    else dial(client, host, port);
  };
  client.on('data', onData);
}

function dial(client: Socket, host: string, port: number): void {
  const target = connect({ host, port, allowHalfOpen: true, timeout: 2_000 });
  let connected = false;
  const refuse = (why: string) => {
    target.destroy();
    if (connected) client.destroy();
    else client.end(`${why}\n`);
  };
  target.on('timeout', () => refuse('ETIMEDOUT'));
  target.on('error', (error: NodeJS.ErrnoException) => refuse(error.code ?? error.message));
  target.on('connect', () => {
    connected = true;
    target.setTimeout(0);
    client.write('ok\n');
    client.pipe(target).pipe(client);
  });
  client.on('close', () => target.destroy());
}

/** One client's datagrams, by a socket of their own; it ends when either side does, or nobody listens there. */
function exchangeDatagrams(client: Socket, host: string, port: number): void {
  const target = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  let open = true;
  const end = () => {
    if (open) target.close();
    open = false;
    client.destroy();
  };
  target.on('error', end);
  client.on('close', end);
  target.on('message', (datagram) => sendDatagram(client, datagram));
  // Its callback is also told of a failure, which the types do not say.
  target.connect(port, host, (...[error]: Error[]) => {
    if (error || !open) return end();
    client.write('ok\n');
    onDatagrams(client, (datagram) => open && target.send(datagram));
    client.resume();
  });
}

rmSync(socketPath, { force: true });
createServer({ allowHalfOpen: true }, join).listen(socketPath);

// What a task sees of itself from outside: the address its host masquerades it as.
for (const address of outsideAddresses) {
  createHttpServer((request, response) => response.end(`${request.socket.remoteAddress ?? ''}\n`)).listen(80, address);
}
