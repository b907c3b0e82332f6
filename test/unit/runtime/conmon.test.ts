/** What conmon answers is understood. */
import { describe, expect, it } from 'vitest';
import { parseAnswer } from '#node-agent/runtime/conmon.ts';
import { sharedDirectory } from '#node-agent/runtime/rootfs.ts';

describe('conmon’s answer', () => {
  it('is the pid of the container', () => {
    expect(parseAnswer('{"pid": 4711}\n', () => '')).toBe(4711);
  });

  it('is the runtime’s complaint, in its words', () => {
    const answer = '{"pid": -1, "message": "runc create failed: no such file"}\n';
    expect(() => parseAnswer(answer, () => '')).toThrow(/could not be created: runc create failed: no such file/);
  });

  it('is conmon’s own complaint where it says nothing', () => {
    expect(() => parseAnswer('', () => 'conmon: unknown option\n')).toThrow(/conmon failed: conmon: unknown option/);
  });
});

describe('the directory that layers share', () => {
  it('is the longest one above them all', () => {
    expect(sharedDirectory(['/s/12/fs', '/s/123/fs', '/s/9/fs'])).toBe('/s/');
    expect(sharedDirectory(['/s/12/fs'])).toBe('/s/12/');
    expect(sharedDirectory(['/a/x', '/b/x'])).toBe('/');
    expect(sharedDirectory([])).toBe('/');
  });
});
