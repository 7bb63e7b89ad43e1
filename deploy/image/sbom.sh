#!/usr/bin/env bash
# Writes the bill of materials of an image, CycloneDX 1.6 in JSON, from its lock file: every package
# with its version and hashes; or of an environment, with the licences too.
#   deploy/image/sbom.sh slim|cpu|gpu [FILE]         of an image, as its lock file says
#   deploy/image/sbom.sh /opt/skipserve/bin/python [FILE]   of an environment that is there
# Needs cyclonedx-py on the PATH: pip install cyclonedx-bom, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
of=${1:?slim, cpu, gpu, or the Python of an environment}
case $of in
slim | cpu | gpu)
    file=${2:-sbom-$of.json}
    what=(requirements "deploy/image/requirements-$of.txt") ;;
*)
    file=${2:-sbom.json}
    what=(environment "$of") ;;
esac
cyclonedx-py "${what[@]}" --pyproject pyproject.toml --output-reproducible --of JSON -o "$file"
echo "$file"
