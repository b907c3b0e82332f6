/** The top-level `networks:`, and which of them a file's services make. */
import { defaultNetworkOf, type NetworkSpec, type NetworkSubnet } from '#proto/model/network.ts';
import { isNetworkName } from '#proto/model/validate.ts';
import { type Findings, type Place, refuse } from './diagnostic.ts';
import type { Said } from './draft.ts';
import { refuseBesideExternal } from './external.ts';
import { isNull, readBoolean, readExternal, readKeys, readRecord, readText } from './read.ts';
import type { MapTree, Tree } from './tree.ts';

export interface DeclaredNetwork {
  readonly spec: NetworkSpec;
  readonly place: Place;
  /** It must be there already: the spec says only its name. */
  readonly external: boolean;
}

/** By their keys in the file; `default` is always among them. */
export type DeclaredNetworks = ReadonlyMap<string, DeclaredNetwork>;

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

interface NetworkDraft {
  spec: Mutable<NetworkSpec>;
  driver: string;
  name?: string;
  external?: Said<boolean>;
  options?: MapTree;
  subnets: NetworkSubnet[];
}

const subnetRemedy = 'write - subnet: 172.28.0.0/16';
const ownInterfaces = 'remove it: the links of the hosts are named and addressed by Gantry';

/** Options of Docker's drivers with the value that says what Gantry does anyway; others are refused with what to do instead. */
const knownOptions: Readonly<Record<string, { readonly same?: string; readonly remedy: string }>> = {
  'com.docker.network.bridge.name': { remedy: ownInterfaces },
  'com.docker.network.bridge.default_bridge': { same: 'false', remedy: 'remove it' },
  'com.docker.network.bridge.enable_icc': { same: 'true', remedy: 'say who may call a service by x-allow-from' },
  'com.docker.network.bridge.enable_ip_masquerade': {
    same: 'true',
    remedy: 'write internal: true for a network that has no way out',
  },
  'com.docker.network.bridge.gateway_mode_ipv4': { same: 'nat', remedy: 'remove it' },
  'com.docker.network.bridge.gateway_mode_ipv6': { same: 'nat', remedy: 'remove it' },
  'com.docker.network.bridge.host_binding_ipv4': { remedy: 'remove it: a port is published on every node' },
  'com.docker.network.bridge.inhibit_ipv4': { same: 'false', remedy: ownInterfaces },
  'com.docker.network.bridge.trusted_host_interfaces': { remedy: ownInterfaces },
  'com.docker.network.container_iface_prefix': { same: 'eth', remedy: 'remove it: interfaces are called eth0, eth1 …' },
  'com.docker.network.driver.mtu': { remedy: 'remove it: the MTU of each path is measured' },
  'com.docker.network.driver.overlay.vxlanid_list': { remedy: ownInterfaces },
  'com.docker.network.host_ipv4': { remedy: 'remove it: connections leave with the address of their host' },
  'com.docker.network.host_ipv6': { remedy: 'remove it: connections leave with the address of their host' },
  'com.docker.network.mtu': { remedy: 'remove it: the MTU of each path is measured' },
  ipvlan_flag: { remedy: 'use driver: macvlan' },
  ipvlan_mode: { remedy: 'use driver: macvlan' },
  macvlan_mode: { same: 'bridge', remedy: 'remove it: tasks are put beside the parent in bridge mode' },
};

export function networkSpec(name: string, project: string): NetworkSpec {
  return {
    name,
    project,
    driver: 'cluster',
    internal: false,
    ipv6: false,
    encrypted: false,
    subnets: [],
    parent: '',
    labels: {},
  };
}

/** The top-level `networks:`; `place` is where the implicit one is said to be. */
export function readNetworks(
  findings: Findings,
  tree: Tree | undefined,
  project: string,
  place: Place,
): Map<string, DeclaredNetwork> {
  const networks = new Map<string, DeclaredNetwork>();
  networks.set('default', { spec: networkSpec(defaultNetworkOf(project), project), place, external: false });
  if (!tree || isNull(tree)) return networks;
  if (tree.kind !== 'map') {
    refuse(findings, tree, 'networks must be a map', 'write networks: { front: }');
    return networks;
  }
  for (const [key, { keyAt, value }] of tree.entries) {
    if (key.startsWith('x-') || value.tag === 'reset') continue;
    networks.set(key, readNetwork(findings, value, key, project, { at: keyAt, path: `networks.${key}` }));
  }
  return networks;
}

function readNetwork(findings: Findings, tree: Tree, key: string, project: string, place: Place): DeclaredNetwork {
  const draft: NetworkDraft = { spec: { ...networkSpec('', project) }, driver: '', subnets: [] };
  readKeys(findings, tree, 'a network', draft, {
    name: (draft, value) => {
      draft.name = readText(findings, value) ?? '';
    },
    external: (draft, value) => {
      const { external, name } = readExternal(findings, value);
      draft.external = { value: external, place: value };
      if (name !== undefined) draft.name = name;
    },
    driver: (draft, value) => {
      draft.driver = readText(findings, value) ?? '';
      readDriver(findings, draft, value);
    },
    driver_opts: (draft, value) => {
      if (value.kind === 'map') draft.options = value;
      else refuse(findings, value, 'driver_opts must be a map', 'write parent: eth0');
    },
    // Every network may be joined by hand: it is no setting here.
    attachable: (_, value) => {
      readBoolean(findings, value);
    },
    enable_ipv4: (_, value) => {
      if (readBoolean(findings, value) === false)
        refuse(findings, value, 'every task has an IPv4 address', 'remove it, or write true');
    },
    enable_ipv6: (draft, value) => {
      draft.spec.ipv6 = readBoolean(findings, value) ?? false;
    },
    internal: (draft, value) => {
      draft.spec.internal = readBoolean(findings, value) ?? false;
    },
    ipam: (draft, value) => readIpam(findings, draft, value),
    labels: (draft, value) => {
      draft.spec.labels = readRecord(findings, value);
    },
  });
  if (draft.options) readOptions(findings, draft, draft.options);
  const external = draft.external?.value ?? false;
  if (external && tree.kind === 'map') refuseBesideExternal(findings, tree);
  const name = draft.name || (external ? key : `${project}_${key}`);
  if (external && (name === 'host' || name === 'none' || name === 'bridge'))
    refuse(findings, place, `"${name}" is no network of the cluster`, `write network_mode: ${name} at the service`);
  else if (!isNetworkName(name))
    refuse(findings, place, `"${name}" cannot name a network`, 'use letters, digits, ., - and _');
  return { spec: { ...draft.spec, name, subnets: draft.subnets }, place, external };
}

function readDriver(findings: Findings, draft: NetworkDraft, value: Tree): void {
  if (draft.driver === 'macvlan') draft.spec.driver = 'macvlan';
  else if (draft.driver === 'host' || draft.driver === 'none')
    refuse(
      findings,
      value,
      `"${draft.driver}" is not a driver of networks`,
      `write network_mode: ${draft.driver} at the service`,
    );
  else if (!['', 'default', 'bridge', 'overlay'].includes(draft.driver))
    refuse(
      findings,
      value,
      `the driver "${draft.driver}" is not supported by Gantry yet`,
      'use bridge, overlay or macvlan, or remove it',
    );
}

function readOptions(findings: Findings, draft: NetworkDraft, options: MapTree): void {
  for (const [option, { keyAt, value }] of options.entries) {
    const place = { at: keyAt, path: `${options.path}.${option}` };
    const text = value.kind === 'scalar' ? value.source : undefined;
    const known = Object.hasOwn(knownOptions, option) ? knownOptions[option] : undefined;
    if (text === undefined) refuse(findings, value, `option "${option}" must be text`, `write ${option}: VALUE`);
    else if (option === 'parent' && draft.spec.driver === 'macvlan') draft.spec.parent = text;
    else if (option === 'parent')
      refuse(findings, place, 'only networks of the driver macvlan have a parent', 'write driver: macvlan');
    else if (option === 'encrypted' && draft.spec.driver === 'cluster') draft.spec.encrypted = text !== 'false';
    else if (!known)
      refuse(
        findings,
        place,
        `the driver has no option "${option}" in Gantry`,
        'remove it; parent and encrypted exist',
      );
    else if (text !== known.same) refuse(findings, place, `"${option}: ${text}" is not supported`, known.remedy);
  }
}

function readIpam(findings: Findings, draft: NetworkDraft, tree: Tree): void {
  readKeys(
    findings,
    tree,
    'ipam',
    draft,
    {
      driver: (_, value) => {
        const driver = readText(findings, value);
        if (driver !== 'default')
          refuse(findings, value, `the ipam driver "${driver}" is not supported by Gantry yet`, 'remove it');
      },
      config: (draft, value) => {
        if (value.kind !== 'list') refuse(findings, value, 'config must be a list', subnetRemedy);
        else for (const item of value.items) readSubnet(findings, draft, item);
      },
    },
    { options: 'remove it' },
  );
}

function readSubnet(findings: Findings, draft: NetworkDraft, tree: Tree): void {
  const subnet: Mutable<NetworkSubnet> = { subnet: '', gateway: '', ipRange: '', reserved: [] };
  const before = findings.errors.length;
  const text = (value: Tree): string => {
    const said = readText(findings, value) ?? '';
    if (said.includes(':'))
      refuse(
        findings,
        value,
        `"${said}" is IPv6: addresses of that kind follow from the IPv4 ones`,
        'remove it, and write enable_ipv6: true',
      );
    return said;
  };
  readKeys(findings, tree, 'a subnet', subnet, {
    subnet: (subnet, value) => {
      subnet.subnet = text(value);
    },
    gateway: (subnet, value) => {
      subnet.gateway = text(value);
    },
    ip_range: (subnet, value) => {
      subnet.ipRange = text(value);
    },
    aux_addresses: (subnet, value) => {
      if (value.kind !== 'map') refuse(findings, value, 'aux_addresses must be a map', 'write router: 172.28.0.5');
      else subnet.reserved = [...value.entries.values()].map((entry) => text(entry.value));
    },
  });
  if (findings.errors.length > before || isNull(tree)) return;
  if (subnet.subnet === '') refuse(findings, tree, 'this has no subnet', subnetRemedy);
  else draft.subnets.push(subnet);
}

export function refuseTwoOfOneName(findings: Findings, declared: DeclaredNetworks): void {
  const owners = new Map<string, string>();
  for (const [key, { spec, place }] of declared) {
    const owner = owners.get(spec.name);
    if (owner !== undefined)
      refuse(findings, place, `networks.${owner} is called "${spec.name}" too`, 'give one of them another name:');
    owners.set(spec.name, key);
  }
}
