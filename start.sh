#!/bin/sh
# Double-click to start lora_sd; the same as: python3 launch.py
exec python3 "$(dirname "$0")/launch.py" "$@"
