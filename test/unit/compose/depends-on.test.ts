/** `depends_on` in both forms, what implies it, and what it asks of the services it names. */

import { describe, expect, it } from 'vitest';
import { resolve } from '#control-plane/compose/resolve.ts';
import type { Dependency } from '#proto/model/order.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { errorsOf, resolveInput, specsOf } from '#test/support/compose.ts';

const services = (...lines: string[]): readonly ServiceSpec[] =>
  specsOf(resolve(resolveInput(`services:\n${lines.map((line) => `  ${line}\n`).join('')}`)));
const errors = (...lines: string[]) => errorsOf(`services:\n${lines.map((line) => `  ${line}\n`).join('')}`);

describe('depends_on', () => {
  it('is a list of names', () => {
    const [web] = services('web: { image: a, depends_on: [db, db] }', 'db: { image: b }');
    expect(web!.dependsOn).toEqual([{ service: 'db', condition: 'service_started', restart: false, required: true }]);
  });

  it('is a map with conditions', () => {
    const [web] = services(
      'web: { image: a, depends_on: { db: { condition: service_healthy, restart: true }, job: { condition: service_completed_successfully, required: false } } }',
      'db: { image: b }',
      'job: { image: c, restart: on-failure }',
    );
    expect(web!.dependsOn).toEqual([
      { service: 'db', condition: 'service_healthy', restart: true, required: true },
      { service: 'job', condition: 'service_completed_successfully', restart: false, required: false },
    ]);
  });

  it('follows from links and from whose network is had, and what is said goes before', () => {
    const [web, side] = services(
      'web: { image: a, links: ["db:d", cache], depends_on: { cache: { condition: service_healthy } } }',
      'side: { image: a, network_mode: "service:web", volumes_from: [db] }',
      'db: { image: b }',
      'cache: { image: c }',
    );
    const words = ({ service, condition, restart }: Dependency) =>
      `${service} ${condition}${restart ? ' restart' : ''}`;
    expect(web!.dependsOn.map(words)).toEqual(['cache service_healthy', 'db service_started restart']);
    expect(side!.dependsOn.map(words)).toEqual(['web service_started restart', 'db service_started']);
  });

  it('lets who is awaited to end, and says nothing of restarts, end', () => {
    const wait = '{ job: { condition: service_completed_successfully } }';
    const [, job] = services(`web: { image: a, depends_on: ${wait} }`, 'job: { image: c }');
    expect(job!.restart.condition).toBe('none');
    expect(errors(`web: { image: a, depends_on: ${wait} }`, 'job: { image: c, restart: always }')).toEqual([
      'compose.yaml:2:34 services.web.depends_on.job: service job is restarted whenever it ends: it never completes → write restart: "no" or restart: on-failure there',
    ]);
  });

  it('refuses what can never hold, at its place', () => {
    expect(errors('web: { image: a, depends_on: [wbe] }', 'api: { image: b }')[0]).toContain(
      '2:33 services.web.depends_on[0]: there is no service "wbe" in the file',
    );
    const optional = '{ gone: { condition: service_started, required: false } }';
    expect(services(`web: { image: a, depends_on: ${optional} }`)[0]!.dependsOn).toHaveLength(1);
    expect(errors('web: { image: a, depends_on: [web] }')[0]).toContain('service web names itself');
    expect(errors('web: { image: a, depends_on: { db: { restart: true } } }', 'db: { image: b }')[0]).toContain(
      '2:34 services.web.depends_on.db: the dependency on db has no condition → add condition: service_started',
    );
    expect(errors('web: { image: a, depends_on: { db: { condition: healthy } } }', 'db: { image: b }')[0]).toContain(
      '"healthy" is not one of service_started, service_healthy, service_completed_successfully',
    );
    expect(
      errors(
        'web: { image: a, depends_on: { db: { condition: service_healthy } } }',
        'db: { image: b, healthcheck: { disable: true } }',
      )[0],
    ).toContain('service db has its health check switched off → give it one, or wait for service_started');
  });

  it('refuses a circle once, and shows it', () => {
    expect(
      errors(
        'a: { image: a, depends_on: [b] }',
        'b: { image: a, depends_on: [c] }',
        'c: { image: a, links: [b] }',
        'd: { image: a, depends_on: [a] }',
      ),
    ).toEqual([
      'compose.yaml:4:26 services.c.links[0]: services wait for each other: b → c → b → remove one of these dependencies',
    ]);
  });
});
