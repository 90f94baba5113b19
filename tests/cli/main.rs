//! The command line: exact output and exit codes.
