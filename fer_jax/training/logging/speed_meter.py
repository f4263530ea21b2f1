"""Measures the speed of training."""

from collections.abc import Callable


class SpeedMeter:
  """Images per second of training, with a clock that can be stopped.

  The clock starts when the first training call has returned, which may include
  one-time work of the device; its images are not counted. Since steps run
  asynchronously, the clock must be stopped after their results have arrived.

  Attributes:
    seconds_between: how long the clock was stopped in the last epoch, for
      evaluation and saving.
  """

  def __init__(self, clock: Callable[[], float]):
    """Starts without a measurement.

    Args:
      clock: returns monotonic seconds.
    """
    self._clock = clock
    self._images = 0
    self._seconds = 0.0
    self._has_started = False
    self._running_since: float | None = None
    self._stopped_since: float | None = None
    self._stopped_seconds = 0.0  # in this epoch
    self._at_epoch_start: tuple[int, float] | None = None  # images, seconds
    self._settled: tuple[int, float] | None = None  # in this epoch
    self.seconds_between = 0.0

  @property
  def images_per_second(self) -> float | None:
    """Speed since the run started or was resumed; None before it is known."""
    return self._rate((0, 0.0))

  @property
  def epoch_images_per_second(self) -> float | None:
    """Speed in the current epoch; None before it is known.

    While the clock runs, it is that since `settle`.
    """
    if self._running_since is None:
      return self._rate(self._at_epoch_start or (0, 0.0))
    return self._rate(self._settled) if self._settled else None

  def start_epoch(self) -> None:
    """Restarts the clock for an epoch."""
    self.resume()
    if self._at_epoch_start is not None:
      self.seconds_between = self._stopped_seconds
    self._stopped_seconds = 0.0
    self._at_epoch_start = (self._images, self._measured())
    self._settled = None

  def update(self, images: int) -> None:
    """Counts images; must be called after every training call."""
    if self._running_since is not None:
      self._images += images
    elif self._stopped_since is None:
      self._running_since = self._clock()
    self._has_started = True

  def settle(self) -> None:
    """Must be called when the results of earlier steps have been waited for.

    Calls count steps that the devices have yet to compute. How many that are
    grows at the start of an epoch, when speed would be overestimated; between
    calls of this it does not.
    """
    if self._settled is None:
      self._settled = (self._images, self._measured())

  def pause(self) -> None:
    """Stops the clock, if it is running; images are not counted meanwhile."""
    if self._stopped_since is not None:
      return
    self._stopped_since = self._clock()
    if self._running_since is not None:
      self._seconds += self._stopped_since - self._running_since
      self._running_since = None

  def resume(self) -> None:
    """Restarts the clock, if it is stopped."""
    if self._stopped_since is None:
      return
    now = self._clock()
    self._stopped_seconds += now - self._stopped_since
    self._stopped_since = None
    if self._has_started:
      self._running_since = now

  def exclude(self, seconds: float) -> None:
    """Leaves seconds while the clock was stopped out of `seconds_between`."""
    if self._stopped_since is not None:
      self._stopped_since += seconds

  def _measured(self) -> float:
    """Returns the seconds of measured training."""
    if self._running_since is None:
      return self._seconds
    return self._seconds + self._clock() - self._running_since

  def _rate(self, since: tuple[int, float]) -> float | None:
    images = self._images - since[0]
    seconds = self._measured() - since[1]
    return images / seconds if images > 0 and seconds > 0 else None
