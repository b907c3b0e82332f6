/** HOST:PORT, the host in brackets where it is an IPv6 address (RFC 3986, section 3.2.2). */

export function joinHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The host without brackets. What is no HOST:PORT gives an empty host and port 0. */
export function splitHostPort(address: string): { readonly host: string; readonly port: number } {
  const [, host = '', port = ''] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  return { host, port: Number(port) };
}
