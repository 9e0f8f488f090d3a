//! `models`: what is in a storage of models. The storage is asked directly, with the person's own credentials; no server
//! is involved.

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

/// What was asked of the storage, answered.
enum Answer {
    Listed(Vec<Model>),
    Shown(Box<(Model, Content)>),
    Copied(String, PathBuf),
    Deleted(String),
}

pub(super) async fn models(args: ModelArguments, form: Form, console: &mut Console) -> Result<(), Failure> {
    let Some(uri) = args.at else {
        return Err(Failure::Usage("where the models are is needed: --at URI, or SQLFLOW_MODELS".to_owned()));
    };
    let models = Models::at(&uri).map_err(|error| Failure::Usage(error.to_string()))?;
    let json = form.json;
    // Storages block.
    let asked = tokio::task::spawn_blocking(move || ask(&models, args.command)).await;
    match asked.map_err(|error| anyhow!(error))?? {
        Answer::Listed(models) if json => {
            for model in &models {
                write_line(console, &model_json(model))?;
            }
        }
        Answer::Listed(models) => {
            write_listing(&models, form.style.csv, &mut |piece| console.results(piece))?;
        }
        Answer::Shown(shown) if json => write_line(console, &described(&shown.0, &shown.1))?,
        Answer::Shown(shown) => console.results(description(&uri, &shown.0, &shown.1).as_bytes())?,
        Answer::Copied(name, folder) => {
            console.line(Tone::Plain, &format!("model {name} is in {}", folder.display()));
        }
        Answer::Deleted(name) => console.line(Tone::Plain, &format!("model {name} is deleted")),
    }
    console.flush()
}

fn ask(models: &Models, command: ModelCommand) -> anyhow::Result<Answer> {
    Ok(match command {
        ModelCommand::List => Answer::Listed(models.list()?),
        ModelCommand::Show { name } => {
            let content = models.read(&name)?;
            Answer::Shown(Box::new((models.find(&name)?, content)))
        }
        ModelCommand::Get { name, folder } => {
            models.get(&name, &folder)?;
            Answer::Copied(name, folder)
        }
        ModelCommand::Delete { name } => {
            models.delete(&name)?;
            Answer::Deleted(name)
        }
    })
}
