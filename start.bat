@echo off
rem Double-click to start lora_sd; the same as: python launch.py
set PYTHON=python
where py >nul 2>nul && set PYTHON=py -3
%PYTHON% "%~dp0launch.py" %*
if errorlevel 9009 echo Python is missing (or only its Microsoft Store shortcut is there): install 3.12 from https://www.python.org/downloads
if errorlevel 1 pause
