#!/bin/bash
# Ends one singleton when the lease of its node ends, whoever else has died: it needs nothing but the kernel and two files.
# usage: guard.sh LEASE BOOT KILLED GROUP PID SIGNAL GUARD_MS ASK_MS
#   LEASE   file with the lease's end: boot-time ms and boot id     KILLED  file that says why, for the agent
#   GROUP   the container's control group: freezer of version 1, or version 2     PID, SIGNAL  asked to stop by that first
# It says "ready" when it watches, and ends when the group is empty or gone. It starts no process: there may be no room for one.
# Read to its end before it begins: it lives on when the file is written over by another version.
{
lease=$1 boot=$2 killed=$3 group=$4 pid=$5 signal=$6 guard=$7 ask=$8
exec 9<> <(:) 2>/dev/null
asked=

# 0: processes are in the group; they are in $members.
members() {
  members=
  [ -e "$group/cgroup.procs" ] || return 1
  while read -r member; do members+=" $member"; done <"$group/cgroup.procs" 2>/dev/null
  [ -n "$members" ]
}

left() {
  local until=0 of= up
  read -r until of <"$lease" 2>/dev/null
  [ "$of" = "$boot" ] || until=0
  read -r up _ </proc/uptime
  left=$((${until:-0} - 10#${up/./} * 10))
}

why() {
  [ -e "$killed" ] || echo "its node was not heard by the control plane, and its lease ended" >"$killed"
}

echo ready
exec >/dev/null 2>&1
while members; do
  left
  if ((left <= guard)); then
    why
    echo 1 >"$group/cgroup.kill" 2>/dev/null
    # What is frozen does nothing more, and forks nothing while its members are killed.
    [ -e "$group/freezer.state" ] && echo FROZEN >"$group/freezer.state"
    members && kill -KILL $members
    [ -e "$group/freezer.state" ] && echo THAWED >"$group/freezer.state"
    read -r -t 0.01 -u 9
  else
    if [ -z "$asked" ] && ((left <= guard + ask)); then
      asked=1
      why
      [[ "$members " == *" $pid "* ]] && kill -s "$signal" "$pid"
    fi
    read -r -t 0.05 -u 9
  fi
done
exit 0
}
