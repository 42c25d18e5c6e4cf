//! The command line: one file per subcommand. Each parses its flags, makes one call and prints.

pub mod demo;
