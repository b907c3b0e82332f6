/** A server's certificate and trusted CA that can be replaced while it runs: new connections get the new one, open ones live on. */
import { experimental, type ServerCredentials } from '@grpc/grpc-js';
import type { KeyPair } from './certificates.ts';

type CaListener = (update: { caCertificate: Buffer } | null) => void;
type IdentityListener = (update: { certificate: Buffer; privateKey: Buffer } | null) => void;

/** grpc-js 1.14's experimental certificate provider, held to a test in test/contract/security. */
export class LiveCertificate {
  readonly #caListeners = new Set<CaListener>();
  readonly #identityListeners = new Set<IdentityListener>();
  #ca: string;
  #pair: KeyPair;

  constructor(ca: string, pair: KeyPair) {
    this.#ca = ca;
    this.#pair = pair;
  }

  get pair(): KeyPair {
    return this.#pair;
  }

  /** `clients`: those without a certificate of our CA are refused. */
  credentials(options: { readonly clients: boolean }): ServerCredentials {
    const provider = {
      addCaCertificateListener: (listener: CaListener) => {
        this.#caListeners.add(listener);
        process.nextTick(() => listener({ caCertificate: Buffer.from(this.#ca) }));
      },
      removeCaCertificateListener: (listener: CaListener) => void this.#caListeners.delete(listener),
      addIdentityCertificateListener: (listener: IdentityListener) => {
        this.#identityListeners.add(listener);
        process.nextTick(() => listener(identity(this.#pair)));
      },
      removeIdentityCertificateListener: (listener: IdentityListener) => void this.#identityListeners.delete(listener),
    };
    return experimental.createCertificateProviderServerCredentials(provider, provider, options.clients);
  }

  replace(pair: KeyPair): void {
    this.#pair = pair;
    for (const listener of this.#identityListeners) listener(identity(pair));
  }

  /** `ca`: one or more certificates, PEM, that clients may come from. */
  trust(ca: string): void {
    this.#ca = ca;
    for (const listener of this.#caListeners) listener({ caCertificate: Buffer.from(ca) });
  }
}

function identity(pair: KeyPair): { certificate: Buffer; privateKey: Buffer } {
  return { certificate: Buffer.from(pair.certificate), privateKey: Buffer.from(pair.key) };
}
