import { useState } from "react";
import { useRelay } from "./useRelay.js";

function News({ id }) {
  const [texts, setTexts] = useState([]);
  const add = (data) => setTexts((texts) => [...texts, String(data)]);
  const status = useRelay(id, add, { onLost: () => setTexts([]) }); // a real page would load them from its server
  return (
    <section>
      <p>{status}</p>
      <ul>{texts.map((text, n) => <li key={n}>{text}</li>)}</ul>
    </section>
  );
}

export function App() {
  const [count, setCount] = useState(1);
  return (
    <main>
      <button onClick={() => setCount(count + 1)}>Add</button>
      <button onClick={() => setCount(count - 1)} disabled={!count}>Remove</button>
      {Array.from({ length: count }, (_, n) => <News key={n} id="demo" />)}
    </main>
  );
}
