/** Holds what a newer peer says beside what we know to leaving no trace in records, which are JSON and are sent on again. */
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { expect, it } from 'vitest';
import { ContainerSpec, Mount } from '#proto/gen/gantry/v1/types.ts';

it('F36: a message of a newer peer is what we know of it, also after it was a record', () => {
  const mount = Mount.fromPartial({ type: 'volume', source: 'data', target: '/data' });
  const known = ContainerSpec.encode(ContainerSpec.fromPartial({ image: 'web:1', mounts: [mount] })).finish();
  const newer = new BinaryWriter();
  newer.uint32(10).string('web:1'); // image
  const omen = (writer: BinaryWriter) => writer.uint32((9_001 << 3) | 2).string('omen');
  const tag = tagOfMounts(known);
  const inner = newer.uint32(tag).fork();
  omen(Mount.encode(mount, inner)).join();
  const decoded = ContainerSpec.decode(omen(newer).finish());
  expect(decoded.mounts).toEqual([mount]);
  const record = JSON.parse(JSON.stringify(decoded)) as ContainerSpec;
  expect(Buffer.from(ContainerSpec.encode(record).finish())).toEqual(Buffer.from(known));
});

/** Of the field that follows `image`. */
function tagOfMounts(bytes: Uint8Array): number {
  const end = 2 + bytes[1]!;
  const first = bytes[end]!;
  return first < 0x80 ? first : (first & 0x7f) | (bytes[end + 1]! << 7);
}
