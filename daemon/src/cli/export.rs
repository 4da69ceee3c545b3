//! `export`: a partition or a dataset as CSV or JSON lines.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{Done, ask::ask_with, lines, output::Output};
use crate::{
    admin::{ExportFormat, Request},
    app::dir::NodeDir,
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync export enterprise/410122 -o 410122.csv\n          creditsync export enterprise --format jsonl\nA whole dataset gets a leading _origin column. Personal fields are not masked: protect the file."
)]
pub(super) struct Arguments {
    /// A partition (dataset/origin) or a whole dataset / 分区或数据集
    #[arg(value_name = "PARTITION|DATASET")]
    target: String,
    /// csv or jsonl
    #[arg(long, value_enum, default_value = "csv")]
    format: ExportFormat,
    /// Write to a file instead of standard output; a pipe or a device is written into
    /// / 输出文件（管道和设备直接写入）
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { target, format, output } = arguments;
    let request = Request::Export { target, format };
    let (answer, attention) = match output {
        Some(path) => to_file(dir, &request, &path)?,
        None => {
            let mut out = std::io::stdout().lock();
            // What others wrote may not steer a terminal; a file or the next program
            // gets it as it is.
            let terminal = out.is_terminal();
            let answer = ask_with(dir, &request, None, &mut |chunk| {
                write_chunk(&mut out, &if terminal { lines(&chunk) } else { chunk.into() })
            })?;
            out.flush().context("write to standard output")?;
            answer
        }
    };
    eprintln!("{} records", super::text_of(&answer["records"]));
    if attention {
        let skipped = super::text_of(&answer["skipped"]);
        eprintln!("{skipped} records cannot be read and were left out; the log says which");
    }
    Ok(Done::from_attention(attention))
}

/// A file appears whole or not at all, and only its owner reads it.
fn to_file(
    dir: &NodeDir,
    request: &Request,
    path: &Path,
) -> anyhow::Result<(serde_json::Value, bool)> {
    let context = || format!("导出到 {0} / export to {0}", path.display());
    let mut out = BufWriter::new(Output::open(path, files::PRIVATE).with_context(context)?);
    let (answer, attention) =
        ask_with(dir, request, None, &mut |chunk| write_chunk(&mut out, &chunk))
            .with_context(context)?;
    let out = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(context)?;
    out.commit().with_context(context)?;
    Ok((answer, attention))
}

fn write_chunk(out: &mut dyn Write, chunk: &str) -> anyhow::Result<()> {
    match out.write_all(chunk.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("write the export"),
    }
}
