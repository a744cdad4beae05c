"""What every room stands on: errors, options, paths, disks, files, progress. Imports nothing of the project."""
