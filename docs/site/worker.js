/* Browsers start no worker from disk. There, search runs its script in a hidden frame instead. */
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    const inside = frame.contentWindow;
    window.addEventListener("message", ({ source, data }) => {
      if (source !== inside) return;
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    });
    inside.document.open();
    inside.document.write(
      "<script>postMessage = (data) => parent.postMessage(data, '*');" +
        "importScripts = (...urls) => urls.reduce((before, src) => before.then(() => " +
        "new Promise((loaded) => document.body.append(Object.assign(" +
        "document.createElement('script'), { src, onload: loaded })))), Promise.resolve())" +
        `</script><body><script src="${url}"></script>`
    );
    inside.document.close();
    this.inside = new Promise((ready) => (inside.onload = () => ready(inside)));
    this.frame = frame;
  }
  postMessage(data) {
    this.inside.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
  }
  terminate() {
    this.frame.remove();
  }
}
if (location.protocol === "file:") window.Worker = FrameWorker;
