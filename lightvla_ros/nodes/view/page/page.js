// The page of the policy node: draws what the stream /watch says, and posts orders.
// Text from the node goes into the page as text alone, never as HTML: an instruction may say anything.
'use strict';

const SPAN = 60; // s that the curves show
const SILENCE = 1500; // ms without an event, after which the node counts as lost
const CAMERA_COLOURS = ['#6aa9f7', '#f2b650', '#c792ea', '#5fd08a'];
const STAGE_COLOURS = {
  preprocess: '#6aa9f7', encode: '#5fd08a', act: '#f2b650', postprocess: '#c792ea', node: '#7d8896',
};

const element = (id) => document.getElementById(id);
const cameras = new Map(); // name -> {canvas, count, picture, about}
let points = [];
let status = null; // the newest event
let chunk = null;
let heard = 0; // when the newest event came [ms]
let source = null;

function say(id, text) {
  const node = element(id);
  if (node.textContent !== text) node.textContent = text;
}

// The stream

function watch() {
  if (source) source.close();
  source = new EventSource(element('seen').checked ? '/watch?seen' : '/watch');
  points = [];
  source.onmessage = (message) => take(JSON.parse(message.data));
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(watch, 2000);
  };
}

function take(event) {
  status = event;
  heard = performance.now();
  points = points.concat(event.points).filter((point) => point.at > event.now - SPAN);
  if (event.chunk) chunk = event.chunk;
  showStatus();
  showCameras(event.cameras || []);
  showCurves();
}

setInterval(() => {
  if (status && performance.now() - heard < SILENCE) return;
  element('state').className = 'LOST';
  say('state', 'LOST');
  say('reason', 'the node says nothing');
  say('meaning', 'what is shown below is old; the node has ended, or is out of reach');
}, 500);

// Words and numbers

function showStatus() {
  const s = status;
  element('state').className = s.state;
  say('state', s.state);
  say('reason', s.reason || (s.state === 'RUNNING' ? 'moving' : ''));
  say('meaning', s.meaning);
  say('about', s.node + (s.policy ? '\n' + s.policy : ''));
  element('current').className = s.instruction ? 'given' : '';
  say('current', s.instruction || 'none');
  say('advice', s.rejected ? 'The last instruction was refused; the log says why.' : s.advice);
  element('text').placeholder = s.example;
  element('release').disabled = !s.paused;
  const last = points[points.length - 1];
  numbers([
    ['latency (camera to chunk)', last ? last.latency.toFixed(0) + ' ms' : '-'],
    ['chunks of this session', String(s.chunks)],
    ['last chunk', last ? (s.now - last.at).toFixed(1) + ' s ago' : '-'],
    ['engine', s.engine || '-'],
  ]);
}

function numbers(rows) {
  const list = element('numbers');
  while (list.children.length < 2 * rows.length) {
    list.append(document.createElement('dt'), document.createElement('dd'));
  }
  rows.forEach((row, i) => row.forEach((text, j) => {
    list.children[2 * i + j].textContent = text;
  }));
}

// Cameras

function cameraOf(name) {
  if (!cameras.has(name)) {
    const box = document.createElement('div');
    const head = document.createElement('h2');
    const count = document.createElement('span');
    const canvas = document.createElement('canvas');
    box.className = 'camera';
    head.append(name.replaceAll('_', ' '), count);
    box.append(head, canvas);
    element('cameras').append(box);
    cameras.set(name, {canvas, count, picture: null, about: null});
  }
  return cameras.get(name);
}

function showCameras(list) {
  element('way').hidden = !(chunk && Object.keys(chunk.paths).length);
  for (const about of list) {
    const camera = cameraOf(about.name);
    const old = about.age > 0.5;
    const kept = chunk && fresh() ? chunk.kept[about.name].length : null;
    let text = about.age === undefined ? 'no picture yet' : old ? about.age.toFixed(1) + ' s old' : '';
    if (!old && kept !== null) text = `${kept} of ${chunk.rows * chunk.columns} patches kept`;
    camera.count.textContent = about.error || text;
    camera.count.className = about.error || old ? 'old' : '';
    if (about.jpeg) {
      const picture = new Image();
      picture.onload = () => {
        camera.picture = picture;
        camera.about = about;
        draw(camera);
      };
      picture.src = 'data:image/jpeg;base64,' + about.jpeg;
    } else if (camera.picture) {
      draw(camera);
    }
  }
}

// Whether the last chunk still is what the robot does, or belongs to the pictures that are shown.
function fresh() {
  return status.state === 'RUNNING' || element('seen').checked;
}

function draw(camera) {
  const {canvas, picture, about} = camera;
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(width * about.height / about.width);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const pen = canvas.getContext('2d');
  pen.drawImage(picture, 0, 0, width, height);
  if (!chunk || !fresh()) return;
  drawPatches(pen, picture, about.area, chunk.kept[about.name], scale);
  const path = chunk.paths[about.name];
  if (path && Math.abs(about.width / about.height / path.aspect - 1) < 0.01) {
    drawPath(pen, path.places, scale);
  }
}

function drawPatches(pen, picture, area, kept, scale) {
  const {width, height} = pen.canvas;
  const [left, top, across, down] = area;
  pen.fillStyle = 'rgba(9, 11, 14, 0.66)';
  pen.fillRect(0, 0, width, height);
  pen.strokeStyle = '#5fd08a';
  pen.lineWidth = 1.5 * scale;
  for (const patch of kept) {
    const x = left + across * (patch % chunk.columns) / chunk.columns;
    const y = top + down * Math.floor(patch / chunk.columns) / chunk.rows;
    const at = [x * width, y * height, across / chunk.columns * width, down / chunk.rows * height];
    pen.save();
    pen.beginPath();
    pen.rect(...at);
    pen.clip();
    pen.drawImage(picture, 0, 0, width, height);
    pen.restore();
    pen.strokeRect(...at);
  }
}

function drawPath(pen, places, scale) {
  const {width, height} = pen.canvas;
  const at = places.map((place) => place && [place[0] * width, place[1] * height]);
  const colour = (i) => {
    const t = i / (places.length - 1);
    const mix = t < 0.5 ? [[79, 125, 255], [255, 79, 216], 2 * t] : [[255, 79, 216], [255, 216, 79], 2 * t - 1];
    return `rgb(${mix[0].map((from, k) => Math.round(from + (mix[1][k] - from) * mix[2]))})`;
  };
  pen.lineCap = 'round';
  for (const [wide, paint] of [[6, () => 'rgba(0, 0, 0, 0.7)'], [3, colour]]) {
    pen.lineWidth = wide * scale;
    for (let i = 1; i < at.length; i += 1) {
      if (!at[i - 1] || !at[i]) continue;
      pen.strokeStyle = paint(i);
      pen.beginPath();
      pen.moveTo(...at[i - 1]);
      pen.lineTo(...at[i]);
      pen.stroke();
    }
  }
  at.forEach((place, i) => {
    if (!place) return;
    const closed = chunk.gripper[Math.max(i - 1, 0)] < 0.5;
    pen.beginPath();
    pen.arc(...place, (closed ? 4.5 : 3) * scale, 0, 2 * Math.PI);
    pen.lineWidth = 2 * scale;
    pen.strokeStyle = pen.fillStyle = colour(i);
    if (closed) pen.stroke();
    else pen.fill();
  });
}

// Curves

function showCurves() {
  const last = points[points.length - 1];
  const names = (status.cameras || []).map((camera) => camera.name);
  say('kept', last ? `${last.kept.reduce((a, b) => a + b, 0)} now` : '');
  curve('keptcurve', names.map((name, i) => ({
    name: name.replaceAll('_', ' '),
    colour: CAMERA_COLOURS[i % CAMERA_COLOURS.length],
    value: (point) => point.kept[i],
  })));
  say('stages', last ? `${total(last).toFixed(1)} ms now` : '');
  curve('stagecurve', Object.entries(STAGE_COLOURS).map(([name, colour]) => ({
    name, colour, value: (point) => point.stages[name],
  })));
}

const total = (point) => Object.values(point.stages).reduce((a, b) => a + b, 0);

// Stacked steps over the last minute: a value holds until the next chunk.
function curve(id, series) {
  const canvas = element(id);
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [left, bottom, top] = [34, height - 18, 22];
  const stacked = points.map((point) => series.reduce((sum, each) => sum + each.value(point), 0));
  const most = nice(Math.max(1, ...stacked));
  const x = (at) => left + (width - left) * (1 - (status.now - at) / SPAN);
  const y = (value) => bottom - (bottom - top) * value / most;
  pen.font = '11px system-ui, "DejaVu Sans", sans-serif';
  pen.fillStyle = '#9aa5b4';
  pen.strokeStyle = '#303845';
  for (const part of [0, 0.5, 1]) {
    pen.fillText(String(most * part), 2, y(most * part) + 4);
    pen.beginPath();
    pen.moveTo(left, y(most * part));
    pen.lineTo(width, y(most * part));
    pen.stroke();
  }
  for (const ago of [60, 40, 20]) pen.fillText(`-${ago} s`, Math.max(left, x(status.now - ago) - 12), height - 4);
  pen.fillText('now', width - 24, height - 4);
  const base = points.map(() => 0);
  let place = left;
  for (const each of series) {
    pen.fillStyle = each.colour;
    points.forEach((point, i) => {
      const next = i + 1 < points.length ? points[i + 1].at : status.now;
      const until = Math.min(next, point.at + 2);
      const from = y(base[i]);
      base[i] += each.value(point);
      const begin = Math.max(left, x(point.at));
      pen.fillRect(begin, y(base[i]), Math.max(1, x(until) - begin), from - y(base[i]));
    });
    pen.fillRect(place, 4, 9, 9);
    pen.fillStyle = '#c9d1dc';
    pen.fillText(each.name, place + 13, 13);
    place += 26 + pen.measureText(each.name).width;
  }
}

function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 4, 6, 8, 10].find((factor) => factor * unit >= value);
}

// Orders

async function order(name, content = {}) {
  const answer = element('answer');
  answer.className = '';
  answer.textContent = '...';
  try {
    const response = await fetch('/orders/' + name, {
      method: 'POST',
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify(content),
    });
    const {message} = await response.json();
    answer.className = response.ok ? '' : 'bad';
    answer.textContent = `${name}: ${message}`;
    return response.ok;
  } catch (error) {
    answer.className = 'bad';
    answer.textContent = `${name}: the node cannot be reached`;
    return false;
  }
}

for (const name of ['hold', 'release', 'reset']) element(name).onclick = () => order(name);
element('order').onsubmit = async (event) => {
  event.preventDefault();
  if (await order('instruct', {text: element('text').value})) element('text').value = '';
};
element('seen').onchange = watch;
watch();
