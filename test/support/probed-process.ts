/** A task to probe, in a network of its own: HTTP on 8080, gRPC health on 9090, a port that never answers on 7070. */
import { execFileSync } from 'node:child_process';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';

execFileSync('ip', ['link', 'set', 'lo', 'up']);

const web = http.createServer((request, response) => {
  const { url = '', headers } = request;
  if (url === '/slow') return;
  if (url === '/who') response.end(headers.host);
  else response.writeHead(Number(url.slice(1)) || 200, { 'x-seen': 'yes' }).end(`answer of ${url} `.repeat(1_000));
});

/** HealthCheckResponse by the service's name: SERVING for the server as a whole, NOT_SERVING for `sick`, an error for others. */
const rpc = http2.createServer();
rpc.on('stream', (stream, headers) => {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('end', () => {
    const name = Buffer.concat(chunks).subarray(7).toString();
    const known = name === '' || name === 'sick';
    const isCheck = headers[':path'] === '/grpc.health.v1.Health/Check';
    stream.respond({ 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () =>
      stream.sendTrailers({
        'grpc-status': known && isCheck ? '0' : '5',
        'grpc-message': known ? '' : 'unknown service',
      }),
    );
    if (known) stream.write(Buffer.from([0, 0, 0, 0, 2, 0x08, name === '' ? 1 : 2]));
    stream.end();
  });
});

web.listen(8080, () => rpc.listen(9090, () => net.createServer(() => {}).listen(7070, () => console.log('ready'))));
