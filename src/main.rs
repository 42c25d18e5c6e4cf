//! argv to exit code; the only reader of the environment.

fn main() {}
