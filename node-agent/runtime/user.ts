/** Who a container's process runs as: Docker's reading of `user`, over the image's own passwd and group files. Pure. */
import { Fault } from '#proto/kernel/errors.ts';

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  /** Of the passwd entry; `/` where there is none. */
  readonly home: string;
}

const maxId = 2 ** 31 - 1;

/**
 * `user` is empty (root), `name`, `uid`, `name:group`, `uid:gid` or a mix. Without a group, the user's own group and all the
 * groups that list the user apply; with one, only that. Faults `invalid`: unknown name, or a number out of range.
 */
export function resolveUser(user: string, passwd: string, group: string): ProcessUser {
  const [name = '', groupName, ...more] = user.split(':');
  if (more.length > 0)
    throw new Fault('invalid', `user "${user}" has more than one colon`, { remedy: 'write USER or USER:GROUP' });
  const users = rows(passwd, 7);
  const groups = rows(group, 3);
  const wanted = name === '' ? '0' : name;
  const entry = users.find((row) => row[0] === wanted) ?? users.find((row) => row[2] === wanted);
  const uid = entry ? idOf(entry[2]!, 'user') : idOf(wanted, 'user');
  const home = entry?.[5] || '/';
  if (groupName !== undefined && groupName !== '') {
    const row = groups.find((row) => row[0] === groupName);
    return { uid, gid: idOf(row?.[2] ?? groupName, 'group'), additionalGids: [], home };
  }
  const gid = entry ? idOf(entry[3]!, 'group') : 0;
  const additionalGids = entry
    ? groups.filter((row) => row[3]?.split(',').includes(entry[0]!)).map((row) => idOf(row[2]!, 'group'))
    : [];
  return { uid, gid, additionalGids: [...new Set(additionalGids)], home };
}

/** `group_add`: further groups, by the names of the image or by number. Fault `invalid`. */
export function withGroups(user: ProcessUser, added: readonly string[], group: string): ProcessUser {
  const groups = rows(group, 3);
  const gids = added.map((name) => idOf(groups.find((row) => row[0] === name)?.[2] ?? name, 'group'));
  return { ...user, additionalGids: [...new Set([...user.additionalGids, ...gids])] };
}

function rows(text: string, least: number): string[][] {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'))
    .filter((row) => row.length >= Math.min(least, 3));
}

function idOf(text: string, kind: 'user' | 'group'): number {
  if (!/^\d+$/.test(text)) {
    throw new Fault('invalid', `the image has no ${kind} "${text}"`, {
      remedy: `use a numeric id, or an image whose /etc/${kind === 'user' ? 'passwd' : 'group'} has it`,
    });
  }
  const id = Number(text);
  if (id <= maxId) return id;
  throw new Fault('invalid', `${kind} id ${text} is out of range`, { remedy: `use 0 to ${maxId}` });
}
