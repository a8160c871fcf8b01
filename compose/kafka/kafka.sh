#!/bin/sh
# Runs a real Apache Kafka for development and tests. Needs a JDK (17 or newer) and, to fetch Kafka, Maven.
#
#   kafka.sh fetch               download Kafka's jars once, into .cache/kafka/libs
#   kafka.sh run [PORT [DIR]]    run one broker in the foreground on 127.0.0.1:PORT (0 or none: a free port),
#                                with its data and broker.log in DIR (none: a new folder); SIGTERM or Ctrl-C stops it
set -eu

here=$(cd "$(dirname "$0")" && pwd)
home=${REGMESH_KAFKA_HOME:-$here/../../.cache/kafka}
libs=$home/libs

fetch() {
  if [ -f "$home/pom.xml" ] && cmp -s "$here/pom.xml" "$home/pom.xml"; then
    return
  fi
  rm -rf "$libs"
  mvn -B -q -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$libs"
  cp "$here/pom.xml" "$home/pom.xml" # marks libs as complete, and of this version
}

new_cluster_id() {
  python3 -c 'import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22])'
}

free_ports() {
  python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in held))'
}

run() {
  port=$1
  dir=$2
  set -- $(free_ports)
  [ "$port" != 0 ] || port=$1
  controller_port=$2
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  sed -e "s#@PORT@#$port#g" -e "s#@CONTROLLER_PORT@#$controller_port#g" -e "s#@DIR@#$dir#g" \
    "$here/server.properties.template" > "$dir/server.properties"
  # Overrides from DIR/extra.properties: of two lines for one setting, Kafka uses the last.
  [ ! -f "$dir/extra.properties" ] || cat "$dir/extra.properties" >> "$dir/server.properties"
  # Tuned for little memory and a quick start, not for load.
  options="-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
  logging="-Dlog4j2.configurationFile=$here/log4j2.properties"
  if [ ! -f "$dir/data/meta.properties" ]; then
    mkdir -p "$dir/data"
    if [ ! -d "$libs/formatted" ]; then # one format serves all folders: it takes a JVM of its own
      java $options -cp "$libs/*" "$logging" "-Dbroker.log=$dir/broker.log" kafka.tools.StorageTool \
        format "--cluster-id=$(new_cluster_id)" "--config=$dir/server.properties" > "$dir/format.log"
      new=$(mktemp -d "$libs/formatted.XXXXXX")
      cp -R "$dir/data/." "$new"
      mv -T "$new" "$libs/formatted" 2> "$dir/format.log" || rm -rf "$new" # another start was first
    else
      cp -R "$libs/formatted/." "$dir/data"
      sed -i "s/^cluster.id=.*/cluster.id=$(new_cluster_id)/" "$dir/data/meta.properties"
    fi
  fi
  echo "kafka://127.0.0.1:$port (log: $dir/broker.log)"
  exec java $options -cp "$libs/*" "$logging" "-Dbroker.log=$dir/broker.log" kafka.Kafka "$dir/server.properties"
}

case ${1:-} in
  fetch) fetch ;;
  run) fetch && run "${2:-0}" "${3:-$(mktemp -d)}" ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
