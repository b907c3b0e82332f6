/** From what people type to what is meant. */
import { describe, expect, it } from 'vitest';
import { findAny, findNode, findService, findTask } from '#control-plane/api/names.ts';
import type { Table, Tables } from '#control-plane/store/records.ts';
import { keyOf, LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { aNode, aService, aTask, idOf } from '#test/support/builders.ts';

const snapshot = new LiveSnapshot();
function put<T extends Table>(table: T, value: Tables[T]): void {
  snapshot.apply(table, keyOf(table, value), value, 1);
}
const web = aService('web');
put('service', web);
put('service', aService('shopapi', { project: 'shop', name: 'api' }));
put('service', aService('demoapi', { name: 'api' }));
put('node', aNode('h1'));
put('task', aTask('old', { slot: 3, state: 'failed', wanted: 'shutdown', createdAtMs: 1 }));
put('task', aTask('new', { slot: 3, createdAtMs: 2 }));
put('task', aTask('next', { slot: 3, state: 'pending', createdAtMs: 3 }));
put('task', aTask('gone', { slot: 9, state: 'shutdown', wanted: 'shutdown' }));

describe('a name', () => {
  it('is a service’s where it is unique, else project/service', () => {
    expect(findService(snapshot, 'web').id).toBe(web.id);
    expect(findService(snapshot, 'shop/api').id).toBe(idOf('shopapi'));
    expect(() => findService(snapshot, 'api')).toThrow('"api" may mean demo/api or shop/api');
  });
  it('may be the start of an id', () => {
    expect(findService(snapshot, idOf('shopapi').slice(0, 6)).spec.project).toBe('shop');
    expect(findNode(snapshot, idOf('h1')).name).toBe('h1');
    expect(() => findService(snapshot, 'web0000')).not.toThrow();
  });
  it('of a seat is the task that runs in it, else the last that did', () => {
    expect(findTask(snapshot, 'web.3').id).toBe(idOf('new'));
    expect(findTask(snapshot, 'demo/web.9').id).toBe(idOf('gone'));
    expect(findTask(snapshot, idOf('old')).id).toBe(idOf('old'));
  });
  it('that is not there is refused with a guess', () => {
    expect(() => findService(snapshot, 'wbe')).toThrow(
      expect.objectContaining({ code: 'not-found', remedy: 'did you mean web?' }),
    );
    expect(() => findTask(snapshot, 'web.44')).toThrow('service demo/web has no task 44');
    expect(() => findAny(snapshot, 'nothing')).toThrow('there is no service, task or node "nothing"');
  });
  it('of anything is looked up among services, nodes and tasks', () => {
    expect(findAny(snapshot, 'web')).toHaveProperty('service');
    expect(findAny(snapshot, 'h1')).toHaveProperty('node');
    expect(findAny(snapshot, 'web.3')).toHaveProperty('task');
  });
});
