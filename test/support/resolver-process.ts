/** A name server of the world: it gives one address for every name, until it is killed. */
import dgram from 'node:dgram';
import net from 'node:net';
import packet from 'dns-packet';
import { framed, readMessages } from '#net/dns/upstream.ts';

const [address = '', data = ''] = process.argv.slice(2);

function replyTo(bytes: Buffer): Buffer {
  const { id, questions } = packet.decode(bytes);
  const answers = (questions ?? [])
    .filter(({ type }) => type === 'A')
    .map(({ name }): packet.Answer => ({ type: 'A', name, ttl: 60, data }));
  return packet.encode({ type: 'response', id: id ?? 0, questions: questions ?? [], answers });
}

const udp = dgram.createSocket('udp4');
udp.on('message', (bytes, from) => udp.send(replyTo(bytes), from.port, from.address));
const tcp = net.createServer((socket) => {
  socket.on('error', () => {});
  readMessages(socket, (bytes) => socket.write(framed(replyTo(bytes))));
});
tcp.listen(53, address, () => udp.bind(53, address, () => process.stdout.write('ready\n')));
