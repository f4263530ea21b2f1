"""What accelerator.py measures again, and its rows of failed runs."""

import types

import accelerator
import accelerator_table
import accelerator_train


def test_what_was_measured_on_this_device_is_not_measured_again(
  tmp_path, capsys
):
  case = {"model": "resnet18", "dtype": "bfloat16", "batch_size": 256}
  task = accelerator_table.Task("step", case, 10)
  other = accelerator_table.Task("step", case | {"model": "leaky_cnn"}, 10)
  row = {
    "step_ms": 2.0,
    "step_ms_low": 1.9,
    "step_ms_high": 2.1,
    "images_per_second": 128000.0,
  }
  table = accelerator_table.Results(tmp_path, "A")
  table.add(task, {"note": "RESOURCE_EXHAUSTED"})
  assert not accelerator_table.Results(tmp_path, "A").has(task)
  table.add(task, row)
  table.finish()
  table = accelerator_table.Results(tmp_path, "A")
  assert len(table.rows) == 1 and table.has(task) and not table.has(other)
  second = accelerator_table.Results(tmp_path, "B")
  assert not second.has(task)
  second.add(task, row)
  second.finish()
  shown = capsys.readouterr().out.rpartition("1st step")[2]
  assert shown.count("step ") == 1 and len(second.rows) == 2


def test_tpus_are_spared_what_is_for_gpus():
  every = list(accelerator.tasks(False, "", ""))
  left = [t.name for t in every if accelerator.is_useful(t, "TPU v5 lite")]
  assert all(accelerator.is_useful(t, "NVIDIA H100 80GB HBM3") for t in every)
  assert {"train_resnet50_cold", "step_resnet18"} < set(left)
  assert not {"step_resnet18_graphs", "peers_resnet18_float32"} & set(left)
  assert len(left) < len(every)


def test_what_shares_a_cache_is_measured_in_one_call(
  tmp_path, monkeypatch, capsys
):
  def run(task, limit, output):
    ran.append(task.name)
    return {"note": "failed"} if task.name in failing else {"epoch_s": 1.0}

  def call(*names):
    ran.clear()
    failing[:] = names
    accelerator.main([])
    return list(ran)

  ran: list[str] = []
  failing: list[str] = []
  pair = [
    accelerator.Task(name, {}, 10, cache="train") for name in ("cold", "cached")
  ]
  monkeypatch.setattr(accelerator, "tasks", lambda *args: iter(pair))
  monkeypatch.setattr(accelerator, "run", run)
  monkeypatch.setattr(accelerator, "device_kind", lambda: "A")
  given = types.SimpleNamespace(
    minutes=1, output=str(tmp_path), tiny=True, manual_dir=""
  )
  monkeypatch.setattr(accelerator.flags, "FLAGS", given)
  assert call("cold") == ["cold"]
  assert "cold left it no cache" in capsys.readouterr().out
  assert call("cached") == ["cold", "cached"]
  assert call() == ["cold", "cached"]
  assert call() == []


def test_a_training_that_was_killed_is_a_note(tmp_path):
  (tmp_path / "log").write_text("")
  assert accelerator_train._last_line(tmp_path / "log") == ""
  (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch"}\n{"kind": "ep')
  assert accelerator_train._records(tmp_path) == [{"kind": "epoch"}]
