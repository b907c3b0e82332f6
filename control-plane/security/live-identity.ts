/** The identity of this replica while it runs: certificates are renewed and the CA is changed under it, and whoever uses them hears of it. */
import { certificatesIn } from '#proto/certificates.ts';
import type { Authority, KeyPair } from './certificates.ts';
import { LiveCertificate } from './live-certificate.ts';
import type { Pki } from './pki.ts';

export class LiveIdentity {
  /** Issues by whatever is the CA at that moment. */
  readonly authority: Authority;
  /** Of the doors that agents, operators and replicas come to with certificates. */
  readonly door: LiveCertificate;
  /** Of the door of machines that join: they know the CA's hash alone, and are shown the CA itself. */
  readonly enrolDoor: LiveCertificate;
  readonly #listeners = new Set<() => void>();
  #pki: Pki;

  constructor(pki: Pki) {
    this.#pki = pki;
    const current = () => this.#pki.authority;
    this.authority = {
      get certificate() {
        return current().certificate;
      },
      get hash() {
        return current().hash;
      },
      get trust() {
        return current().trust;
      },
      issue: (request) => current().issue(request),
    };
    this.door = new LiveCertificate(pki.authority.trust, pki.pair('server'));
    this.enrolDoor = new LiveCertificate(pki.authority.trust, shownToJoin(pki));
  }

  get pki(): Pki {
    return this.#pki;
  }

  /** False where nothing of it is new. */
  replace(pki: Pki): boolean {
    const before = this.#pki;
    if (
      pki.authority.trust === before.authority.trust &&
      pki.pair('server').certificate === before.pair('server').certificate &&
      pki.pair('client').certificate === before.pair('client').certificate
    )
      return false;
    this.#pki = pki;
    for (const door of [this.door, this.enrolDoor]) door.trust(pki.authority.trust);
    this.door.replace(pki.pair('server'));
    this.enrolDoor.replace(shownToJoin(pki));
    for (const listener of [...this.#listeners]) listener();
    return true;
  }

  /** Called after each change. The result unsubscribes. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

function shownToJoin({ authority, pair }: Pki): KeyPair {
  const { certificate, key } = pair('server');
  return { certificate: certificatesIn(certificate)[0]! + authority.certificate, key };
}
