//! `man`: manual pages, out of the same descriptions that `--help` shows, so that no page can say anything else.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, Exit, Failure, Shell, help};

/// What stands at the foot of each page. No date: a page is as old as its version, and a build is to be repeatable.
const SOURCE: &str = concat!("interven-alerts ", env!("CARGO_PKG_VERSION"));

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Read a page:
    interven-alerts man | man -l -
    interven-alerts man dead-letters replay | man -l -
  Install all of them for this user:
    interven-alerts man --out ~/.local/share/man/man1")]
pub struct Args {
    /// The command whose page is printed, such as `dead-letters replay`; left out: that of interven-alerts
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory, which is made where it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args, shell: &mut Shell<'_>) -> Result<(), Failure> {
    // There is no page for `help`, which is a way to read the others.
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let Some(dir) = &args.out else {
        let (mut command, mut above) = (&root, None);
        for word in &args.command {
            above = Some(command);
            command = command.find_subcommand(word).ok_or_else(|| {
                Failure::new(format!("there is no command `{}`", crate::settings::printable(&args.command.join(" "))))
                    .hint("`interven-alerts --help` lists them")
                    .exit(Exit::Usage)
            })?;
        }
        return Ok(shell.out.write_all(&page(command, above)?)?);
    };
    let dir = shell.directory.join(dir);
    let mut written = 0;
    std::fs::create_dir_all(&dir).map_err(|error| unwritable(&dir, &error))?;
    write_all(&root, None, &dir, &mut written)?;
    shell.say("note", &format!("wrote {written} pages into {}", dir.display()));
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("could not write {}", path.display())).caused_by(error.to_string()).hint("check the path")
}

fn write_all(
    command: &clap::Command,
    above: Option<&clap::Command>,
    dir: &Path,
    written: &mut u32,
) -> Result<(), Failure> {
    let path = dir.join(format!("{}.1", name(command)));
    let mut file = std::fs::File::create(&path).map_err(|error| unwritable(&path, &error))?;
    file.write_all(&page(command, above)?).map_err(|error| unwritable(&path, &error))?;
    *written += 1;
    command.get_subcommands().try_for_each(|below| write_all(below, Some(command), dir, written))
}

/// `interven-alerts-dead-letters-replay`.
fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of one command, in roff. It points to the page of the command that it belongs to.
fn page(command: &clap::Command, above: Option<&clap::Command>) -> Result<Vec<u8>, Failure> {
    // Two long names of pages leave no room between them for the name of a manual.
    let man = Man::new(command.clone()).manual(" ").source(SOURCE).date(" ");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut more = Roff::new();
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    for section in help::sections(&text) {
        more.control("SH", [section.heading.to_uppercase().as_str()]);
        render(&section, &mut more);
    }
    more.control("SH", ["SEE ALSO"]);
    match above {
        Some(above) => more.text([bold(name(above)), roman("(1)")]),
        None => more.text([roman(env!("CARGO_PKG_REPOSITORY"))]),
    };
    more.to_writer(&mut page)?;
    Ok(page)
}

fn render(section: &help::Section<'_>, page: &mut Roff) {
    let (mut in_code, mut in_terms) = (false, false);
    for (at, line) in section.lines.iter().enumerate() {
        let copied = matches!(line, help::Line::Code(_));
        if copied != in_code {
            if copied {
                page.control("RS", ["4"]).control("nf", []);
            } else {
                page.control("fi", []).control("RE", []);
            }
            in_code = copied;
        }
        match line {
            help::Line::Code(code) => {
                page.text([roman(*code)]);
            }
            help::Line::Term(term, meaning) => {
                page.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
                in_terms = true;
            }
            help::Line::Prose(words) => {
                let begins = at == 0 || matches!(section.lines[at - 1], help::Line::Code(_));
                if begins && !in_terms && at > 0 {
                    page.control("PP", []);
                }
                page.text([roman(*words)]);
            }
            help::Line::Blank => {
                page.control("PP", []);
                in_terms = false;
            }
        }
    }
    if in_code {
        page.control("fi", []).control("RE", []);
    }
}
