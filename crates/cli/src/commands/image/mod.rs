//! Verbs on images.

mod explain_path;
mod history;
mod import;
mod inspect;
mod layers;
mod load;
mod ls;
pub(super) mod prune;
mod rm;
pub(super) mod save;
mod tag;

use super::Verb;
use super::verb;

pub(super) const VERBS: &[Verb] = &[
    verb!(["images", "image ls", "image list"], "List images", ls::Arguments, ls::run),
    verb!(["image inspect"], "Show all that is known of images", inspect::Arguments, inspect::run),
    verb!(
        ["history", "image history"],
        "Show the layers of an image and what made them",
        history::Arguments,
        history::run
    ),
    verb!(["image layers"], "Show the layers of an image, and what is in them", layers::Arguments, layers::run),
    verb!(
        ["explain path"],
        "Tell which layer a path comes from, and who changed or deleted it",
        explain_path::Arguments,
        explain_path::run
    ),
    verb!(["image prune"], "Remove unused images", prune::Arguments, prune::run),
    verb!(["rmi", "image rm", "image remove"], "Remove images", rm::Arguments, rm::run),
    verb!(["load", "image load"], "Load images from an archive", load::Arguments, load::run),
    verb!(["save", "image save"], "Write images into an archive", save::Arguments, save::run),
    verb!(["import", "image import"], "Make an image from a tar archive of files", import::Arguments, import::run),
    verb!(["tag", "image tag"], "Give an image another name", tag::Arguments, tag::run),
];
