//! `xennet image`: the store of images, without a daemon.

use std::cell::RefCell;

use serde_json::json;
use xennetd::config::Config;
use xennetd::control::Role;
use xennetd::image::{ImageLibrary, LibraryError, StoredImage, library, store_bytes};

use crate::cli::{AddArgs, ImageOrder, PruneArgs};
use crate::commands::Context;
use crate::fail::{Fail, chain};
use crate::progress::Progress;
use crate::show;
use crate::show::table::{Align, Table};
use crate::show::units;

/// Does what was ordered about images.
pub fn image(context: &Context, order: &ImageOrder) -> Result<(), Fail> {
    let role = xennetd::config::noted_role(&context.data_dir)?.unwrap_or(Role::Publisher);
    let config = Config::load(&context.settings, role)?;
    let library = library(&config).map_err(|e| Fail::new("this program cannot find itself").because(e))?;
    let progress = Progress::new(context.json);
    let steps = Steps { progress: &progress, last: RefCell::default() };
    match order {
        ImageOrder::List => show::print(context.json, &library.list()?, |images| list(images)),
        ImageOrder::Add(args) => {
            let image = add(&library, args, &steps)?;
            progress.done();
            show::print(context.json, &image, single)
        }
        ImageOrder::Verify { image } => {
            let images = match image {
                Some(name) => vec![library.find(name)?],
                None => library.list()?,
            };
            for image in &images {
                library.verify(image, &mut |what, done, total| steps.show(what, done, total))?;
            }
            progress.done();
            show::print(context.json, &images, |images| format!("{} as they were when they were added\n", count(images.len())))
        }
        ImageOrder::Prune(args) => prune(context, &library, store_bytes(&config), args),
    }
}

/// Shows steps, each on a line of its own.
struct Steps<'a> {
    progress: &'a Progress,
    last: RefCell<String>,
}

impl Steps<'_> {
    fn show(&self, what: &str, done: u64, total: u64) {
        if *self.last.borrow() != what {
            *self.last.borrow_mut() = what.to_owned();
        }
        match total {
            0 => self.progress.doing(&format!("image: {what}")),
            _ => self.progress.measured(&format!("image: {what} {} of {}", units::bytes(done), units::bytes(total)), done, total),
        }
    }
}

fn add(library: &ImageLibrary, args: &AddArgs, steps: &Steps<'_>) -> Result<StoredImage, Fail> {
    let mut step = |what: &str, done, total| steps.show(what, done, total);
    let image = match &args.initrd {
        Some(initrd) => library.add_pair(&args.file, initrd, &mut step)?,
        None => library.add(&args.file, args.kind, &mut step)?,
    };
    Ok(image)
}

fn prune(context: &Context, library: &ImageLibrary, cap: u64, args: &PruneArgs) -> Result<(), Fail> {
    let images = if args.images.is_empty() {
        library.surplus(args.keep_mib.map_or(cap, |mib| u64::from(mib) << 20))?
    } else {
        args.images.iter().map(|name| library.find(name)).collect::<Result<_, _>>()?
    };
    if !args.dry_run {
        library.sweep();
        for image in &images {
            library.remove(image)?;
        }
    }
    let freed: u64 = images.iter().map(|image| image.stored_bytes).sum();
    let value = json!({ "images": images, "freed_bytes": freed, "dry_run": args.dry_run });
    show::print(context.json, &value, |_| {
        let (would, lines) = (if args.dry_run { "would be" } else { "" }, images.iter().map(|image| format!("  {}\n", image.hash)));
        let head = format!("{} {would} deleted, {} {would} freed\n", count(images.len()), units::bytes(freed)).replace("  ", " ");
        head + &lines.collect::<String>()
    })
}

fn count(images: usize) -> String {
    if images == 1 { "1 image".into() } else { format!("{images} images") }
}

fn list(images: &[StoredImage]) -> String {
    if images.is_empty() {
        return "no images; `xennet image add FILE` takes one\n".into();
    }
    let mut table = Table::new(&[
        ("IMAGE", Align::Left),
        ("KIND", Align::Left),
        ("UNPACKED", Align::Right),
        ("STORED", Align::Right),
        ("FROM", Align::Left),
    ]);
    for image in images {
        table.row(vec![
            show::short(&image.hash),
            image.kind.name().into(),
            units::bytes(image.unpacked_bytes),
            units::bytes(image.stored_bytes),
            show::tame(&image.file),
        ]);
    }
    table.to_string()
}

fn single(image: &StoredImage) -> String {
    let (kind, size) = (image.kind.name(), units::bytes(image.unpacked_bytes));
    format!("image {}\n  {kind}, {size} unpacked, from {}\n", image.hash, show::tame(&image.file))
}

impl From<LibraryError> for Fail {
    fn from(error: LibraryError) -> Fail {
        let next = match &error {
            LibraryError::Refused { .. } => "docs/images.md says what is taken and why",
            _ => "",
        };
        Fail::new(chain(&error)).next(next)
    }
}
