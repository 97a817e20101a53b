#!/bin/bash
# Copy the given folders into a dated archive and keep the last seven.
set -euo pipefail

target=${BACKUP_DIR:-/var/backups}
keep=7
stamp=$(date +%Y-%m-%d)

if [ $# -eq 0 ]; then
    echo "usage: $0 FOLDER..." >&2
    exit 2
fi

mkdir -p "$target"
for folder in "$@"; do
    name=$(basename "$folder")
    tar -czf "$target/$name-$stamp.tar.gz" "$folder"   # one archive each
    ls -1t "$target/$name"-*.tar.gz | tail -n +$((keep + 1)) | while read -r old; do
        rm -- "$old"
    done
done
echo "stored ${#} folders in $target"
