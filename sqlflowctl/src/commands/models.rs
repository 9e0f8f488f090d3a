//! `models`: the models of a storage. The storage is accessed directly, with the user's credentials and without a
//! server.

use std::path::PathBuf;

use anyhow::anyhow;
use sqlflow_model_storage::models::{Content, Model, Models};

use super::Form;
use crate::args::{ModelArguments, ModelCommand};
use crate::console::Console;
use crate::failure::Failure;
use crate::render::Screen as _;
use crate::render::Tone;
use crate::render::json::write_line;
use crate::render::model::{described, description, model_json, write_listing};

/// Result of an operation on the storage.
enum Done {
    Listed(Vec<Model>),
    Shown(Box<(Model, Content)>),
    Copied(String, PathBuf),
    Deleted(String),
}

pub(super) async fn models(args: ModelArguments, form: Form, console: &mut Console) -> Result<(), Failure> {
    let Some(uri) = args.at else {
        return Err(Failure::Usage(
            "cannot access models: no model storage is given; use --at URI or SQLFLOW_MODELS".to_owned(),
        ));
    };
    let models = Models::at(&uri).map_err(|error| Failure::Usage(error.to_string()))?;
    let json = form.json;
    // Storages are blocking.
    let done = tokio::task::spawn_blocking(move || carry_out(&models, args.command)).await;
    match done.map_err(|error| anyhow!(error))?? {
        Done::Listed(models) if json => {
            for model in &models {
                write_line(console, &model_json(model))?;
            }
        }
        Done::Listed(models) => {
            write_listing(&models, form.style.csv, &mut |piece| console.results(piece))?;
        }
        Done::Shown(shown) if json => write_line(console, &described(&shown.0, &shown.1))?,
        Done::Shown(shown) => console.results(description(&uri, &shown.0, &shown.1).as_bytes())?,
        Done::Copied(name, folder) => {
            console.line(Tone::Plain, &format!("model {name} copied to {}", folder.display()));
        }
        Done::Deleted(name) => console.line(Tone::Plain, &format!("model {name} deleted")),
    }
    console.flush()
}

fn carry_out(models: &Models, command: ModelCommand) -> anyhow::Result<Done> {
    Ok(match command {
        ModelCommand::List => Done::Listed(models.list()?),
        ModelCommand::Show { name } => {
            let content = models.read(&name)?;
            Done::Shown(Box::new((models.find(&name)?, content)))
        }
        ModelCommand::Get { name, folder } => {
            models.get(&name, &folder)?;
            Done::Copied(name, folder)
        }
        ModelCommand::Delete { name } => {
            models.delete(&name)?;
            Done::Deleted(name)
        }
    })
}
