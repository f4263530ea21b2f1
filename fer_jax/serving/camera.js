// The webcam; its frames are mirrored, as people see themselves.

const REASONS = {
  NotAllowedError: "The browser was not allowed to use the webcam: allow it for this page, then try again.",
  NotFoundError: "No webcam was found: plug one in, or choose a picture.",
  NotReadableError: "The webcam is in use elsewhere: close the other program, then try again.",
};
const QUALITY = 0.92; // of a frame's JPEG

export class Camera {
  #stream = null;

  // ended: called when the webcam goes away by itself.
  constructor(video, ended) {
    this.video = video;
    this.ended = ended;
  }

  get on() {
    return this.#stream !== null;
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers allow a webcam only on localhost or over https: open this page that way, or choose a picture.");
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "user", width: { ideal: 1280 } },
        audio: false,
      });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The webcam does not work: ${error.message}.`);
    }
    this.#stream = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => this.ended());
    this.video.srcObject = stream;
    await this.video.play();
  }

  stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.video.srcObject = null;
  }

  // What the webcam shows now, as a JPEG.
  frame() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    context.translate(width, 0);
    context.scale(-1, 1);
    context.drawImage(this.video, 0, 0);
    return new Promise((resolve, reject) => {
      canvas.toBlob(
        (blob) => (blob ? resolve(blob) : reject(new Error("The webcam gave no picture: try again."))),
        "image/jpeg",
        QUALITY,
      );
    });
  }
}
