/** Several Compose files as one. */
import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import { resolveInput, specsOf } from '#test/support/compose.ts';

describe('several files', () => {
  const merged = (second: string) =>
    resolve(
      resolveInput('', {
        files: [
          {
            path: 'compose.yaml',
            text: `
services:
  web:
    image: a
    command: [one]
    environment: [A=1, B=1]
    ports: ["80:80"]
    volumes: ["data:/data"]
    labels: { x: "1" }
    dns: 10.0.0.1
volumes: { data: {}, other: {} }
`,
          },
          { path: 'more.yaml', text: second },
        ],
      }),
    );

  it('are laid over each other by the rules of the specification', () => {
    const [spec] = specsOf(
      merged(`
services:
  web:
    image: b
    command: [two]
    environment: { B: "2", C: "3" }
    ports: ["81:81", "80:80"]
    volumes: ["other:/data"]
    dns: [10.0.0.2]
`),
    );
    expect(spec!.template.container).toMatchObject({
      image: 'b',
      command: ['two'],
      env: ['A=1', 'B=2', 'C=3'],
      labels: { x: '1' },
      dns: ['10.0.0.1', '10.0.0.2'],
      mounts: [{ source: 'shop_other', target: '/data' }],
    });
    expect(spec!.ports.map((port) => port.published)).toEqual([80, 81]);
  });

  it('may reset and override', () => {
    const [spec] = specsOf(merged('services:\n  web:\n    labels: !reset null\n    ports: !override ["90:90"]\n'));
    expect(spec!.template.container.labels).toEqual({});
    expect(spec!.ports.map((port) => port.published)).toEqual([90]);
  });

  it('keep the place of each value', () => {
    const resolution = merged('services:\n  web:\n    tty: 5\n');
    expect(resolution.kind === 'errors' && resolution.errors[0]).toMatchObject({
      file: 'more.yaml',
      line: 3,
      column: 10,
    });
  });
});
