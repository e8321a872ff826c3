// A node server on a listening socket that it inherits as descriptor 3. It says on descriptor 4 that it is ready. `mode` is what a
// new version can do wrong; the test writes another word in its place.
'use strict';

const fs = require('fs');
const http = require('http');

const mode = 'good';

if (mode === 'crash') {
  throw new Error('a new version that crashes');
}

let isStopping = false;

const server = http.createServer((request, response) => {
  const answer = () => {
    if (isStopping) {
      response.setHeader('Connection', 'close');
    }
    response.end(`${process.pid}\n`);
  };
  if (request.url === '/slow') {
    setTimeout(answer, 1000);
  } else {
    answer();
  }
});

// Without this handler, node dies of SIGTERM at once. close() ends the idle connections since node 19. One that is in use goes on
// until its client leaves, unless an answer says `Connection: close`.
if (mode !== 'careless') {
  process.on('SIGTERM', () => {
    isStopping = true;
    server.close();
  });
}

if (mode === 'hang') {
  setInterval(() => {}, 3600000);
} else {
  server.listen({ fd: 3 }, () => {
    if (mode !== 'silent') {
      fs.writeSync(4, '\n');
    }
  });
}
