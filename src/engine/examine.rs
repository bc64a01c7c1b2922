//! One object looked at as a whole: what is wrong with this node's copies of it, and what is done about that.
//!
//! A copy that is missing or bad is dropped from the catalog, from which repair makes it again. The bad file is not
//! thrown away but set aside (rule R10): it goes when the catalog counts as many good copies as are wanted, and it is what
//! an operator has left when there is none.

use std::sync::Arc;

use crate::base::digest::Sha256;
use crate::base::id::DirId;
use crate::base::table::TableError;
use crate::core::catalog::query;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::Failure;
use crate::store::objects::{StoreError, Verdict};
use crate::wire::command::{Code, Operation};
use crate::wire::record::{Administrative, Copy, ObjectRecord};
use crate::wire::scrub::Finding;

/// Names that a message about an object mentions.
const NAMED: usize = 3;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    /// The catalog counts no copy here.
    NotHere,
    /// Every copy here is whole.
    Whole,
    /// Not now: bytes for it are just coming in, or the look was ended.
    Later,
    /// So many copies were dropped from the catalog; of others the disk does not give the bytes.
    Bad(usize),
}

/// Directories that cannot be read any more: no copy in them counts.
pub fn lost_dirs(engine: &Engine) -> Vec<DirId> {
    let dirs = engine.objects.dirs();
    let lost = dirs.iter().filter(|dir| dir.lost);
    lost.map(|dir| dir.id).collect()
}

/// Reads every copy that the catalog counts here, and does what is to be done. `pace` is as in
/// [`examine`](crate::store::objects::Objects::examine). A failure says that it is to be tried again.
pub fn examine(
    engine: &Arc<Engine>,
    sha256: Sha256,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Examined, Failure> {
    let known = query::object(&engine.catalog()?, &sha256).map_err(tables_failed)?;
    let Some(object) = known else {
        return Ok(Examined::NotHere);
    };
    let lost = lost_dirs(engine);
    let (mut here, mut bad, mut later, mut dropped) = (false, false, false, 0);
    for copy in &object.copies {
        if copy.node != engine.node() {
            continue;
        }
        here = true;
        let is_dir = engine.dirs.dirs.iter().any(|dir| dir.id == copy.dir);
        let wrong = if !is_dir || lost.contains(&copy.dir) {
            // Rule R9: whatever comes in comes into another directory. As long as it counts it stands for a copy that is none.
            Verdict::Missing
        } else if engine.pins.is_pinned(&sha256) {
            // Bytes for it are just coming in: what is bad now may be good then.
            later = true;
            continue;
        } else {
            match look(engine, &sha256, &object, *copy, pace).map_err(store_failed)? {
                Verdict::Whole => continue,
                Verdict::Stopped => return Ok(Examined::Later),
                wrong => wrong,
            }
        };
        bad = true;
        dropped += usize::from(drop_copy(engine, sha256, &object, *copy, &wrong)?);
    }
    if bad && later {
        engine.candidates.lost(sha256);
    }
    Ok(match (here, bad, later) {
        (false, ..) => Examined::NotHere,
        (true, true, _) => Examined::Bad(dropped),
        (true, false, true) => Examined::Later,
        (true, false, false) => Examined::Whole,
    })
}

#[allow(clippy::needless_pass_by_value)]
fn store_failed(error: StoreError) -> Failure {
    Failure::refused(Code::Internal, error.to_string())
}

fn look(
    engine: &Engine,
    sha256: &Sha256,
    object: &ObjectRecord,
    copy: Copy,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Verdict, StoreError> {
    let mut look = || engine.objects.examine(sha256, copy.dir, object.size, pace);
    let verdict = look()?;
    if matches!(verdict, Verdict::Missing) && take_back(engine, sha256, copy) {
        let again = look()?;
        if matches!(again, Verdict::Whole) {
            engine
                .scrub
                .found(Finding::Miss, &format!("{sha256} in {}", copy.dir));
            engine.scrub.found(
                Finding::Repl,
                &format!("{sha256}: linked again from its name in the visible tree"),
            );
        }
        return Ok(again);
    }
    Ok(verdict)
}

/// A file that is gone from the store but not from the visible tree is the same file: it is taken back from there.
fn take_back(engine: &Engine, sha256: &Sha256, copy: Copy) -> bool {
    let mut dirs = engine.dirs.dirs.iter();
    let Some(dir) = dirs.find(|dir| dir.id == copy.dir) else {
        return false;
    };
    let taken = engine.visible.give_back(&engine.tables, &dir.path, sha256);
    taken.unwrap_or_else(|error| {
        log::warn!(target: "momo::scrub", "{sha256}: {error}");
        false
    })
}

/// Has a copy counted no more that is missing or bad; false when it still is.
fn drop_copy(
    engine: &Arc<Engine>,
    sha256: Sha256,
    object: &ObjectRecord,
    copy: Copy,
    wrong: &Verdict,
) -> Result<bool, Failure> {
    let (finding, identity, what) = match wrong {
        Verdict::Whole | Verdict::Stopped => return Ok(false),
        Verdict::Missing => (Finding::Miss, None, "is not there".to_owned()),
        Verdict::Length { identity, size } => {
            let what = format!("has {size} bytes instead of {}", object.size);
            (Finding::Blen, Some(*identity), what)
        }
        Verdict::Bytes { identity } => {
            let what = "has other bytes than its digest names".to_owned();
            (Finding::Bsum, Some(*identity), what)
        }
        Verdict::Unreadable { identity, error } => {
            let what = format!("cannot be read: {error}");
            (Finding::Bsum, Some(*identity), what)
        }
    };
    let text = format!("{sha256}: the copy in {} {what}", copy.dir);
    let drop_if = |others| {
        engine.commit(Operation::DropCopy {
            sha256,
            copy,
            others,
        })
    };
    match drop_if(1) {
        Ok(_) => {}
        // Another thread saw it first.
        Err(Failure::Refused {
            code: Code::NotFound,
            ..
        }) => return Ok(false),
        Err(Failure::Refused {
            code: Code::Conflict,
            ..
        }) => {
            if matches!(wrong, Verdict::Unreadable { .. }) {
                // It may be read again one day, and nobody else has it now.
                engine.scrub.found(finding, &text);
                return Ok(false);
            }
            let gone = !has_others(engine, sha256, copy).map_err(tables_failed)?;
            match drop_if(0) {
                Err(Failure::Refused {
                    code: Code::NotFound,
                    ..
                }) => return Ok(false),
                dropped => drop(dropped?),
            }
            if gone {
                engine.scrub.found(Finding::Gone, &names(engine, sha256));
            }
        }
        Err(failure) => return Err(failure),
    }
    engine.scrub.found(finding, &text);
    let nodes = query::distinct_nodes(&object.copies);
    engine.scrub.expect_again(sha256, nodes);
    if let Some(identity) = identity {
        set_aside(engine, sha256, copy, identity);
    }
    // A good one may have come in since it was looked at: it is counted again then.
    engine.candidates.add(sha256);
    if let Err(error) = engine.visible.show(&engine.tables, &sha256) {
        log::error!(target: "momo::tree", "{error}");
    }
    Ok(true)
}

/// Takes a bad file out of the readers' way, unless it has been replaced or is counted again.
pub fn set_aside(engine: &Engine, sha256: Sha256, copy: Copy, identity: (u64, u64)) {
    let aside = engine.objects.set_aside(&sha256, copy.dir, identity, || {
        uncounted(engine, sha256, copy)
    });
    match aside {
        Ok(Some(path)) => {
            log::info!(target: "momo::set_aside", "{sha256}: the bad file is kept as {}", path.display());
        }
        Ok(None) => {}
        Err(error) => log::warn!(target: "momo::set_aside", "{sha256}: {error}"),
    }
}

/// Whether neither the catalog nor an upload holds to this copy.
pub fn uncounted(engine: &Engine, sha256: Sha256, copy: Copy) -> bool {
    !engine.pins.is_pinned(&sha256)
        && matches!(
            query::object(&engine.tables, &sha256),
            Ok(known) if known.as_ref().is_none_or(|object| !object.copies.contains(&copy))
        )
}

/// Whether the catalog counts a copy besides `copy` on a node that has not been given up: it may be away, but it may come back.
fn has_others(engine: &Engine, sha256: Sha256, copy: Copy) -> Result<bool, TableError> {
    let Some(object) = query::object(&engine.tables, &sha256)? else {
        return Ok(true);
    };
    let members = query::nodes(&engine.tables)?;
    Ok(object.copies.iter().any(|other| {
        *other != copy
            && members.iter().any(|member| {
                member.id == other.node && member.administrative != Administrative::Dead
            })
    }))
}

/// An object and the files it belongs to, in words.
pub fn names(engine: &Engine, sha256: Sha256) -> String {
    let names = query::names(&engine.tables, &sha256).unwrap_or_default();
    let mut shown: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("'{name}'"))
        .collect();
    match names.len().saturating_sub(NAMED) {
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    if shown.is_empty() {
        shown.push("earlier versions".to_owned());
    }
    format!("{sha256} of {}: no copy is left", shown.join(", "))
}
