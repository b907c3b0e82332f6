/** Who a container runs as follows Docker. */
import { describe, expect, it } from 'vitest';
import { resolveUser } from '#node-agent/runtime/user.ts';

const passwd =
  '# users\nroot:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/srv:/bin/sh\n9:x:70:71::/nine:\nhuge:x:4294967295:1::/:\n\nbroken\n';
const group = 'root:x:0:root,app\nusers:x:100:\nlog:x:4:app,x\nlog2:x:4:app\n';
const resolve = (user: string) => resolveUser(user, passwd, group);

describe('resolveUser', () => {
  it.each([
    ['', { uid: 0, gid: 0, additionalGids: [0], home: '/root' }],
    ['app', { uid: 1000, gid: 100, additionalGids: [0, 4], home: '/srv' }],
    ['1000', { uid: 1000, gid: 100, additionalGids: [0, 4], home: '/srv' }],
    ['app:log', { uid: 1000, gid: 4, additionalGids: [], home: '/srv' }],
    ['app:77', { uid: 1000, gid: 77, additionalGids: [], home: '/srv' }],
    ['5:6', { uid: 5, gid: 6, additionalGids: [], home: '/' }],
    ['5', { uid: 5, gid: 0, additionalGids: [], home: '/' }],
    ['9', { uid: 70, gid: 71, additionalGids: [], home: '/nine' }],
  ])('reads "%s" as Docker does', (user, expected) => {
    expect(resolve(user)).toEqual(expected);
  });

  it('takes numbers in an image without any user files', () => {
    expect(resolveUser('1234:1', '', '')).toEqual({ uid: 1234, gid: 1, additionalGids: [], home: '/' });
    expect(resolveUser('', '', '')).toEqual({ uid: 0, gid: 0, additionalGids: [], home: '/' });
  });

  it.each(['nobody', 'app:nogroup', '-1', '4294967296', '2147483648', 'huge', '1:2:3', '1.5'])(
    'refuses "%s"',
    (user) => {
      expect(() => resolve(user)).toThrow(expect.objectContaining({ code: 'invalid' }));
    },
  );
});
