/** Holds the list of registries without TLS to saying yes to nobody else. */
import { describe, expect, it } from 'vitest';
import { insecureRegistries } from '#node-agent/images/insecure-registries.ts';

describe('registries without TLS', () => {
  const insecure = insecureRegistries(['registry:5000', '10.90.0.0/24']);

  it.each(['registry:5000', '10.90.0.1:5000', '10.90.0.255'])('%s is one of them', (registry) => {
    expect(insecure.has(registry)).toBe(true);
  });

  it.each(['registry', 'registry:5001', 'docker.io', '10.90.1.1:5000', '10.90.0.1.example.com:5000', '[::1]:5000'])(
    '%s is none of them',
    (registry) => {
      expect(insecure.has(registry)).toBe(false);
    },
  );

  it.each(['10.0.0.0/33', '10.0.0.0/', 'example.com/24', '10.0.0.0/8/8'])('"%s" is refused', (word) => {
    expect(() => insecureRegistries([word])).toThrow(/no registry and no network/);
  });
});
