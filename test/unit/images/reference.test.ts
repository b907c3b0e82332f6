/** References as Docker's grammar has them. */
import { describe, expect, it } from 'vitest';
import { formatReference, parseReference } from '#node-agent/images/reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;

describe('references', () => {
  it.each([
    ['nginx', 'docker.io/library/nginx:latest'],
    ['nginx:1.27', 'docker.io/library/nginx:1.27'],
    ['bitnami/redis', 'docker.io/bitnami/redis:latest'],
    ['index.docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['registry:5000/app', 'registry:5000/app:latest'],
    ['127.0.0.1:5000/a/b/c:x_1.2-3', '127.0.0.1:5000/a/b/c:x_1.2-3'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    ['ghcr.io/a/b__c', 'ghcr.io/a/b__c:latest'],
    [`nginx@${digest}`, `docker.io/library/nginx@${digest}`],
    [`registry:5000/app:1@${digest}`, `registry:5000/app:1@${digest}`],
    ['UPPER/app', 'UPPER/app:latest'],
  ])('%s is %s', (text, whole) => {
    expect(formatReference(parseReference(text))).toBe(whole);
    expect(formatReference(parseReference(whole))).toBe(whole);
  });

  it.each([
    ['', 'empty'],
    ['https://registry/app', 'scheme'],
    ['Nginx', 'lower case'],
    ['nginx:', 'tag'],
    ['nginx:a b', 'tag'],
    ['nginx@sha256:abc', '64 hex'],
    [`nginx@${digest}@${digest}`, 'more than one @'],
    ['registry:5000/', 'missing'],
    ['a//b', 'part of a name'],
    ['../../etc/passwd', 'host'],
    ['docker.io/../x', 'part of a name'],
    ['-bad.host:80/app', 'host'],
    [`${'a/'.repeat(130)}b`, '255'],
  ])('%j is refused, saying why', (text, why) => {
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({ code: 'invalid', message: expect.stringContaining(why) }),
    );
  });
});
