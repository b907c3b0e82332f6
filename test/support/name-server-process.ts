/** The name server of a node in a process of its own, that a test may kill: node name-server-process.ts DIRECTORY ADDRESS PORT NUMBER. */

import { DnsServer } from '#net/dns/server.ts';
import { dnsView } from '#net/dns/view.ts';
import { KeptSockets } from '#net/host/kept-sockets.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { taskId } from '#proto/model/ids.ts';
import { attachment, clusterNetwork, endpoint, networkWanted } from './endpoint.ts';

const [directory = '', address = '', port = '', vip = ''] = process.argv.slice(2);
const nobody = { ask: () => Promise.reject(new Fault('unavailable', 'no resolver')) };
const server = new DnsServer({
  clock: systemClock,
  log: silentLog,
  upstream: nobody,
  sockets: new KeptSockets(directory, silentLog),
});
server.update(() =>
  dnsView(
    networkWanted(
      { nodeId: 'n1', address: '127.0.0.250', subnet: '127.0.0.248/29' },
      {
        endpoints: [endpoint('web', { vip, networks: [{ network: 'shop_default', aliases: [] }] })],
        networks: [clusterNetwork('shop_default')],
        attachments: [attachment(taskId('asker'), '127.0.0.2', { networks: ['shop_default'] })],
      },
    ),
  ),
);
await server.listen([address], Number(port));
process.stdout.write('ready\n');
